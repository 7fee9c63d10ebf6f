"""The published 1:N evaluation, probe by probe in numpy: the peer to measure against.

Axis letters: `P` people, `N` photos of a person, `G` distractors, `D` embedding.
"""

import numpy as np

TOP = (1, 5, 10)


def target_rank(probe: np.ndarray, gallery: np.ndarray) -> int:
    """Number of gallery entries before entry 0, by descending similarity.

    Equal similarities keep the gallery's order (a stable sort), so entry 0 wins its ties.

    Args:
      probe: f32[D] unit feature.
      gallery: f32[1+G,D] unit features, the probe's target first.
    """
    order = np.argsort(-(gallery @ probe), kind="stable")
    return int(np.flatnonzero(order == 0)[0])


def evaluate(
    masked: np.ndarray, clean: np.ndarray, distractors: np.ndarray, images_per_person: int
) -> tuple[np.ndarray, np.ndarray]:
    """Top-1, top-5 and top-10 protection rates against one target and all distractors.

    Every masked photo i of a person is searched for once per clean photo j != i of that person:
    the gallery is that one photo and the distractors, nobody else who is protected.

    Args:
      masked: f32[P*N,D] unit features of the masked photos, a person's photos consecutive.
      clean: f32[P*N,D] unit features of the same photos without masks.
      distractors: f32[G,D] unit features.
      images_per_person: N.

    Returns:
      f64[3] protection rates as fractions (1 - identification rate), and i64[P*N*(N-1)] ranks of
      the targets from 0, in the order person, i, j.

    Raises:
      ValueError: if the shapes do not fit.
    """
    if masked.shape != clean.shape or len(masked) % images_per_person:
        raise ValueError(f"{masked.shape}, {clean.shape} are not people of {images_per_person}")
    gallery = np.concatenate([np.empty_like(distractors[:1]), distractors])
    ranks = []
    for person in range(len(masked) // images_per_person):
        photos = range(person * images_per_person, (person + 1) * images_per_person)
        for i in photos:
            for j in photos:
                if j != i:
                    gallery[0] = clean[j]
                    ranks.append(target_rank(masked[i], gallery))
    found = np.array(ranks)
    identified = np.array([np.mean(found < top) for top in TOP])
    return 1 - identified, found
