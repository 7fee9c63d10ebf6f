"""DFANet: what is dropped, that draws are each their own, and that masks depend on nothing else."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from opom_jax import laboratory
from opom_jax.errors import InputError
from opom_jax.evaluation.features import extractor
from opom_jax.masks import generate, transfer
from opom_jax.masks.batches import Batch
from opom_jax.masks.generate import Settings
from opom_jax.masks.memory import bytes_per_person
from opom_jax.masks.objectives import METHODS
from opom_jax.networks import recognizer as recognizers
from opom_jax.networks.layers import Conv, DepthwiseConv, FlatDense, PReLU
from opom_jax.networks.recognizer import normalize
from tests.tiny import SIZE, random_network

RATE = 0.25
MAPS = ((40, 50, 8), (40, 50, 8), (9, 7, 3))  # what the convolutions of `probe` put out
SIGMAS = 5


class Tiny(nnx.Module):
    """16 x 16 pixels -> 8 numbers."""

    def __init__(self, rngs: nnx.Rngs):
        self.conv = Conv(3, 6, 3, stride=2, padding=1, rngs=rngs)
        self.prelu = PReLU(6, rngs=rngs)
        self.depthwise = DepthwiseConv(6, (3, 3), padding=1, rngs=rngs)
        self.dense = FlatDense(8, 8, 6, 8, rngs=rngs)

    def __call__(self, x):
        return self.dense(self.depthwise(self.prelu(self.conv(x)))), {}


class Dense(nnx.Module):
    """No convolution."""

    def __init__(self, rngs: nnx.Rngs):
        self.dense = FlatDense(SIZE, SIZE, 3, 8, rngs=rngs)

    def __call__(self, x):
        return self.dense(x), {}


@pytest.fixture
def network(monkeypatch):
    return random_network(monkeypatch, Tiny)


@pytest.fixture(scope="module")
def photos() -> np.ndarray:
    """u8[3,4,H,W,C]."""
    return np.random.default_rng(1).integers(0, 256, (3, 4, SIZE, SIZE, 3), np.uint8)


@pytest.fixture(scope="module")
def twins(photos) -> np.ndarray:
    """Two people with the same photos."""
    return np.stack([photos[0], photos[0]])


def probe(_, images, change):
    """A network whose convolutions put out ones: what is left of them is the draw."""
    changed = change(len(MAPS))
    return [changed(place, jnp.ones((len(images), *shape))) for place, shape in enumerate(MAPS)]


def draws(key, photos=2, rate=RATE, form="published"):
    """[f32[N,H,W,C] of each place]."""
    embed = transfer.dfanet(probe, rate, form, key)
    return [np.asarray(draw) for draw in embed(None, jnp.zeros((photos, 1, 1, 3)))]


def key(seed=0, person=0, step=0, masked=1):
    return transfer.keys(seed, person, step)[masked]


def check_apart(one, other):
    """Two draws agree as often as independent ones do."""
    a, b = (draw.ravel() == 0 for draw in (one, other))
    share = RATE**2
    spread = np.sqrt(share * (1 - share) / a.size)
    assert abs(np.mean(a & b) - share) < SIGMAS * spread


# The draw.


@pytest.mark.parametrize("rate", [0.1, RATE, 0.9])
def test_share_that_is_dropped(rate):
    for draw in draws(key(), 6, rate)[:2]:
        spread = np.sqrt(rate * (1 - rate) / draw.size)
        assert abs(np.mean(draw == 0) - rate) < SIGMAS * spread
        spread *= np.sqrt(draw.size / draw[0, 0].size)  # of every row of every photo
        assert np.abs(np.mean(draw == 0, (2, 3)) - rate).max() < SIGMAS * spread


def test_published_form_keeps_the_mean_and_the_papers_is_a_plain_product():
    (published, *_), (paper, *_) = draws(key()), draws(key(), form="paper")
    assert set(np.unique(paper)) == {0, 1}
    np.testing.assert_allclose(published, paper / (1 - RATE))


def test_seeds_are_those_of_key_photo_and_place():
    found = transfer.seeds(key(), 3, 4)
    for photo, place in np.ndindex(3, 4):
        own = jax.random.fold_in(jax.random.fold_in(key(), photo), place)
        np.testing.assert_array_equal(found[photo, place], jax.random.bits(own, (2,)))


def test_rate_0_changes_nothing(network, photos):
    images = jnp.asarray(photos[0], jnp.float32)
    same = transfer.dfanet(network.embed, 0.0, "published", key())(network.params, images)
    np.testing.assert_array_equal(same, network.embed(network.params, images))


@pytest.mark.parametrize(
    "other", [{"seed": 1}, {"person": 0}, {"step": 0}, {"masked": 0}, {"person": 2, "step": 1}]
)
def test_draws_of_others_are_independent(other):
    """Of another seed, person, step, and of the clean photos of the same step."""
    ours = {"person": 1, "step": 2}
    for one, two in zip(draws(key(**ours)), draws(key(**ours | other)), strict=True):
        assert not np.array_equal(one, two)
        check_apart(one, two)


def test_draws_of_layers_photos_and_elements_are_independent():
    first, second, _ = draws(key())
    check_apart(first, second)
    check_apart(first[0], first[1])
    for axis in (1, 2, 3):
        for distance in (1, 2, 4):
            check_apart(first, np.roll(first, distance, axis))


def test_many_draws_are_pairwise_uncorrelated():
    """Products of all pairs of 200 draws, of people, steps and photos."""
    every = [draws(key(person=p, step=s), 10)[2] for p in range(4) for s in range(5)]
    rows = np.concatenate(every).reshape(200, -1) == 0
    rows = (rows - RATE) / np.sqrt(RATE * (1 - RATE))
    products = (rows @ rows.T / np.sqrt(rows.shape[1]))[np.triu_indices(200, 1)]
    assert abs(products.mean()) < SIGMAS / np.sqrt(len(products))
    assert abs(products.var() - 1) < 0.1 and np.abs(products).max() < 6.5


def test_draw_repeats_and_depends_on_no_batch():
    few, many = draws(key(), 2), draws(key(), 5)

    def of(person):
        embed = transfer.dfanet(probe, RATE, "published", key(person=person))
        return embed(None, jnp.zeros((2, 1, 1, 3)))

    mapped = jax.vmap(of)(jnp.array([7, 0]))
    for one, more, both in zip(few, many, mapped, strict=True):
        np.testing.assert_array_equal(one, more[:2])
        np.testing.assert_array_equal(one, both[1])
        assert not np.array_equal(one, both[0])


# The step.


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("form", ["published", "paper"])
def test_every_objective_takes_momentum_and_dropout(network, twins, method, form):
    """Two people with the same photos and noise differ by nothing but their draws."""
    settings = Settings(
        method=method, form=form, momentum=1.0, dropout=RATE, steps=3, initial_steps=1
    )
    one, two = laboratory.make_masks(network, settings, twins)
    assert np.isfinite(one).all() and 0 < np.abs(one).max() <= 8
    assert np.mean(one != two) > 0.05


def test_twins_without_dropout_have_the_same_mask(network, twins):
    settings = Settings(method="class_center", momentum=1.0, steps=3)
    one, two = laboratory.make_masks(network, settings, twins)
    np.testing.assert_allclose(one, two, atol=1e-4)


def test_step_is_the_one_by_hand(network, photos):
    """FI-UAP by NumPy: both passes with the draws of their own keys."""
    person, step = 5, 2
    settings = Settings(method="fi_uap", dropout=RATE, momentum=1.0)
    compiled = generate.generator(network, settings)
    ids, batch, valid = jnp.array([person]), jnp.asarray(photos[:1]), jnp.ones((1, 4))
    state, clean = compiled.start(network.params, ids, batch)
    masked = np.array(state.masked[0])
    _, metrics = compiled.step(network.params, state, ids, batch, clean, valid, np.int32(step))

    def features(images, own):
        def ones(_, images, change):
            return [change(2)(place, jnp.ones((len(images), 8, 8, 6))) for place in (0, 1)]

        kept = transfer.dfanet(ones, RATE, "published", own)(None, images)
        changed = network.embed(network.params, images, lambda _: lambda place, y: y * kept[place])
        return np.asarray(normalize(changed), np.float64)

    own = transfer.keys(settings.seed, person, step)
    one, two = features(photos[0].astype(np.float32), own[0]), features(masked, own[1])
    np.testing.assert_allclose(metrics.objective[0], np.mean((two - one) ** 2), rtol=1e-4)
    distance = np.linalg.norm(two - one, axis=1).mean()
    np.testing.assert_allclose(metrics.distance[0], distance, rtol=1e-4)


def test_masks_depend_on_seed_and_not_on_batches(network, photos):
    settings = Settings(method="class_center", steps=3, momentum=1.0, dropout=RATE)
    together = laboratory.make_masks(network, settings, photos, people_per_batch=3)
    apart = laboratory.make_masks(network, settings, photos, people_per_batch=2)
    np.testing.assert_allclose(apart, together, atol=1e-4)
    reseeded = replace(settings, seed=1)
    assert np.mean(laboratory.make_masks(network, reseeded, photos) != together) > 0.3


def test_padding_changes_nothing(network, photos):
    settings = Settings(method="class_center", steps=3, momentum=1.0, dropout=RATE)
    compiled = generate.generator(network, settings)
    ids = np.arange(3, dtype=np.int32)
    alone = Batch(ids, photos[:, :3], np.ones((3, 3), np.float32))
    padded = Batch(ids, photos, np.array([[1, 1, 1, 0]] * 3, np.float32))
    wanted, found = (
        generate.generate(compiled, network.params, settings, batch)[0] for batch in (alone, padded)
    )
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_dropout_fits_into_the_memory_that_is_counted(network, photos):
    compiled = generate.generator(network, Settings(method="fi_uap", momentum=1.0, dropout=RATE))
    ids, valid = jnp.arange(3), jnp.ones((3, 4))
    state, clean = compiled.start(network.params, ids, photos)
    step = compiled.step.lower(network.params, state, ids, photos, clean, valid, np.int32(0))
    used = step.compile().memory_analysis().temp_size_in_bytes
    assert 0 < used <= 3 * bytes_per_person(network, 4, SIZE)


def test_a_network_without_convolutions_is_refused(monkeypatch, photos):
    network = random_network(monkeypatch, Dense)
    with pytest.raises(InputError, match="no layer that dropout reaches"):
        laboratory.make_masks(network, Settings(dropout=RATE), photos)
    with pytest.raises(InputError, match="no layer that dropout reaches"):
        generate.check_network(network, Settings(dropout=RATE))
    generate.check_network(network, Settings())
    assert laboratory.make_masks(network, Settings(steps=1), photos).any()


# The networks of the package.


@pytest.mark.slow
def test_masks_with_momentum_and_dropout_lower_the_similarity():
    """At the surrogate and, less, at a network that it has never seen; beyond random signs."""
    photos = laboratory.synthetic_photos(3, photos=4, probes=4, distractors=1, first=60_000)
    surrogate = recognizers.load("zoo:surrogate_softmax")
    target = recognizers.load("zoo:target_sface")
    settings = Settings(momentum=1.0, dropout=0.1, steps=10)
    made = laboratory.make_masks(surrogate, settings, photos.train)
    noise = laboratory.random_masks(3, 112)

    def similarity(network, masks):
        clean = extractor(network)([photos.probes])
        return (clean * extractor(network)([laboratory.masked_probes(photos, masks)])).sum(1).mean()

    assert similarity(surrogate, made) < similarity(surrogate, noise) - 0.5
    assert similarity(target, made) < similarity(target, noise) - 0.1
