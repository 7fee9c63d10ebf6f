"""python benchmarks/start_torch.py FOLDER: the torch process of `start.py`, without JAX.

Reads FOLDER/weights.pt and FOLDER/people/*/*.png, writes FOLDER/torch/mask_id0.npy, ...
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import published_loop, strongest_torch  # noqa: E402
from tests import torch_twins  # noqa: E402


def main(folder: Path, steps: int = 2) -> None:
    """Makes the masks; as many steps as `start.py` asks of opom-jax."""
    twin = torch_twins.mobilefacenet_xiaoccer()
    twin.register_forward_pre_hook(lambda _, given: (given[0][..., 8:104] - 127.5) / 128)
    twin.load_state_dict(torch.load(folder / "weights.pt", weights_only=True))
    people = sorted((folder / "people").iterdir())
    photos = np.array(
        [[np.asarray(Image.open(p)) for p in sorted(own.iterdir())] for own in people]
    )
    shape = photos.shape[1], 3, *photos.shape[2:4]
    noise = published_loop.uniform_noise(shape, 8.0).numpy()
    embed = strongest_torch.folded(twin)
    masks, _ = strongest_torch.generate(embed, photos, noise, steps=steps, initial_steps=1)
    (folder / "torch").mkdir(exist_ok=True)
    for person, mask in enumerate(masks):
        np.save(folder / "torch" / f"mask_id{person}.npy", mask)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
