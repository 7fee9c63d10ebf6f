"""GAP: its generator beside torch, its gradient, batches of photos, and interruptions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from opom_jax import laboratory
from opom_jax.baselines import gap as module
from opom_jax.baselines.gap import gap, training
from opom_jax.baselines.generator import first_params
from opom_jax.baselines.settings import Settings
from opom_jax.errors import InputError
from opom_jax.networks.recognizer import normalize


@pytest.mark.torch
def test_generator_beside_torch():
    """The published layers, batch norm in training mode over three copies of the pattern."""
    torch = pytest.importorskip("torch")
    w, ours = 4, nnx.merge(*first_params(4, 2, seed=0))

    def conv(module, **kwargs):
        kernel = torch.tensor(np.asarray(module.kernel[...]))
        if kwargs.pop("up", False):  # torch turns the kernel round
            kernel = kernel.flip(0, 1).permute(2, 3, 0, 1)
            layer = torch.nn.ConvTranspose2d(*kernel.shape[:2], 3, 2, 1, 1, bias=False)
        else:
            kernel = kernel.permute(3, 2, 0, 1)
            inputs, bias = kernel.shape[1], kwargs.pop("bias", False)
            layer = torch.nn.Conv2d(inputs, kernel.shape[0], kernel.shape[2], bias=bias, **kwargs)
        layer.weight.data = kernel.contiguous()
        return layer

    def block(module, *padding, relu=True, **kwargs):
        norm = torch.nn.BatchNorm2d(module.norm.num_features)
        norm.weight.data = torch.tensor(np.asarray(module.norm.scale[...]))
        norm.bias.data = torch.tensor(np.asarray(module.norm.bias[...]))
        last = [torch.nn.ReLU()] if relu else []
        return torch.nn.Sequential(*padding, conv(module.conv, **kwargs), norm, *last)

    reflect, body = torch.nn.ReflectionPad2d, list(ours.body)
    draw = np.random.default_rng(0)
    for part in jax.tree.leaves(body, is_leaf=lambda m: isinstance(m, nnx.InstanceNorm)):
        if isinstance(part, nnx.InstanceNorm):  # biases begin at zero
            part.bias[...] = jnp.asarray(draw.normal(size=part.bias.shape), jnp.float32)
    pattern = draw.random((1, 16, 12, 3), np.float32)
    x = torch.tensor(pattern).permute(0, 3, 1, 2).expand(3, -1, -1, -1)
    x = block(body[0], reflect(3))(x)
    for part in body[1:3]:
        x = block(part, stride=2, padding=1)(x)
    for part in body[3:5]:
        y = block(part.first, reflect(1))(x)
        x = x + block(part.second, reflect(1), relu=False)(y)
    for part in body[5:]:
        x = block(part, up=True)(x)
    last = conv(ours.last, bias=True)
    last.bias.data = torch.tensor(np.asarray(ours.last.bias[...]))
    wanted = torch.tanh(last(reflect(3)(x)))[:1].permute(0, 2, 3, 1).detach()
    assert wanted.shape == (1, 16, 12, 3) and body[1].conv.kernel.shape == (3, 3, w, 2 * w)
    np.testing.assert_allclose(ours(jnp.asarray(pattern)), wanted, atol=2e-5)


def test_any_size():
    graph, params = first_params(2, 1, seed=0)
    run = lambda params, pattern: nnx.merge(graph, params)(pattern)  # noqa: E731
    found = jax.eval_shape(run, params, jnp.ones((1, 18, 15, 3)))
    assert found.shape == (1, 18, 15, 3)


def test_first_weights():
    """Normal around 0, and around 1 for norms; the same for the same seed."""
    flat = dict(nnx.to_flat_state(first_params(8, 2, seed=0)[1]))
    for path, values in ((path, np.asarray(v[...])) for path, v in flat.items()):
        if path[-1] == "kernel":
            assert abs(values.mean()) < 0.003 and abs(values.std() - 0.02) < 0.002
        else:
            assert np.abs(values - (path[-1] == "scale")).max() < 0.1
    again, other = (dict(nnx.to_flat_state(first_params(8, 2, seed=s)[1])) for s in (0, 1))
    some = next(path for path in flat if path[-1] == "kernel")
    np.testing.assert_array_equal(again[some][...], flat[some][...])
    assert not np.array_equal(other[some][...], flat[some][...])


@pytest.mark.parametrize("form", ["published", "paper"])
def test_a_step_is_adam_on_equation_17(network, people, tiny_settings, form):
    """On photos that nothing clips, differentiated as a whole; Adam's first step is the sign."""
    settings = tiny_settings("gap", form=form)
    compiled = training(network.embed, settings, (16, 16))
    state = compiled.init()
    images = jnp.asarray(people.photos[0].clip(20, 230), jnp.float32)

    def objective(params):
        mask = compiled.mask(params)
        mask = mask / jax.lax.stop_gradient(jnp.abs(mask).max() / 8)
        features = [
            normalize(network.embed(network.params, x)) for x in (images + mask[None], images)
        ]
        size = jnp.linalg.norm(features[0] - features[1], axis=-1)
        return jnp.mean(size**2) / 8 if form == "published" else jnp.sum(size)

    value, slope = jax.jit(jax.value_and_grad(objective))(state.params)
    before = jax.tree.map(np.asarray, state.params)
    valid = np.ones(3, np.float32)
    after = compiled.step(network.params, state, images.astype(jnp.uint8), valid, 0, 1.0)
    moved = jax.tree.map(lambda new, old: np.asarray(new) - old, after.params, before)
    large = jax.tree.map(lambda g: np.abs(g) > 1e-3 * np.abs(g).max() + 1e-6, slope)
    for change, g, use in zip(*map(jax.tree.leaves, (moved, slope, large)), strict=True):
        np.testing.assert_allclose(change[use], 2e-3 * np.sign(g)[use], atol=5e-5)
    np.testing.assert_allclose(after.history[0, 0], value, rtol=1e-4)


def test_an_epoch_is_every_photo_once(tiny_settings):
    batches = module._batches(tiny_settings("gap"), 11, 0)
    assert [int(valid.sum()) for _, valid in batches] == [4, 4, 3]
    assert {rows.shape for rows, _ in batches} == {(4,)}
    assert sorted(k for rows, valid in batches for k in rows[valid > 0]) == list(range(11))
    first = [rows.tolist() for rows, _ in batches]
    for seed, epoch, same in ((0, 0, True), (0, 1, False), (1, 0, False)):
        others = module._batches(tiny_settings("gap", seed=seed), 11, epoch)
        assert ([rows.tolist() for rows, _ in others] == first) == same


def test_one_mask_for_everybody(network, people, tiny_settings):
    done = []
    report = lambda *now: done.append(now)  # noqa: E731
    made = gap(network, tiny_settings("gap"), people, 4, progress=report)
    assert done == [(1, 3), (2, 3), (3, 3)] and made.masks.shape == (4, 16, 16, 3)
    assert (made.masks == made.masks[0]).all()
    assert np.abs(made.masks).max() == 8
    assert made.metrics["distance"].shape == (4, 3) and (made.metrics["distance"] > 0).all()


def test_photos_that_do_not_count_change_nothing(network, people, tiny_settings):
    other = people.photos.copy()
    other[1, 2] = 7
    found = gap(network, tiny_settings("gap"), people._replace(photos=other), 4)
    wanted = gap(network, tiny_settings("gap"), people, 4)
    np.testing.assert_array_equal(found.masks, wanted.masks)


class Interrupted(Exception):
    pass


def test_an_interrupted_training_goes_on_with_the_same_bits(
    network, people, tiny_settings, tmp_path
):
    settings = tiny_settings("gap")
    wanted = gap(network, settings, people, 4)

    def interrupt(done, total):
        if done == 2:
            raise Interrupted

    with pytest.raises(Interrupted):
        gap(network, settings, people, 4, tmp_path, interrupt)
    done = []
    found = gap(network, settings, people, 4, tmp_path, lambda *now: done.append(now))
    assert done == [(3, 3)]
    np.testing.assert_array_equal(found.masks, wanted.masks)
    for name, values in wanted.metrics.items():
        np.testing.assert_array_equal(found.metrics[name], values)
    again = gap(network, settings, people, 4, tmp_path, lambda *_: pytest.fail("trained again"))
    np.testing.assert_array_equal(again.masks, wanted.masks)
    with pytest.raises(InputError, match=r"settings\.seed: 0 there, 1 here"):
        gap(network, tiny_settings("gap", seed=1), people, 4, tmp_path)


def test_hides_people_of_other_photos(surrogate, photos, similarity):
    settings = Settings(
        method="gap", width=8, blocks=1, epochs=6, photos_per_step=4, learning_rate=2e-3
    )
    made = gap(surrogate, settings, laboratory.everybody(photos.train), 4)
    assert similarity(made.masks) < 0.85 < 0.95 < similarity(laboratory.random_masks(4, 112))
