"""Heads: values and gradients against the formulas in torch or NumPy, and what margins must do."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from opom_jax.training.heads import HEADS, arcface, cosface, cosine, sface, softmax

RNG = np.random.default_rng(0)
EMBEDDINGS = RNG.normal(size=(6, 5)).astype(np.float32)
WEIGHTS = RNG.normal(size=(5, 4)).astype(np.float32)
LABELS = np.array([0, 1, 2, 3, 1, 0], np.int32)
# The first photo is nearly opposite to its person: theta + m passes pi.
EMBEDDINGS[0] = -3 * WEIGHTS[:, 0] + 0.01 * EMBEDDINGS[0]
# The second is nearly its person, where SFace no longer pulls.
EMBEDDINGS[1] = 2 * WEIGHTS[:, 1] + 0.3 * EMBEDDINGS[1]


def by_torch(name, embeddings, weights, scale, margin):
    """Loss, d loss / d embeddings, d loss / d weights, float64, angle by angle."""
    torch = pytest.importorskip("torch")
    e = torch.tensor(embeddings, dtype=torch.float64, requires_grad=True)
    w = torch.tensor(weights, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor(LABELS, dtype=torch.int64)
    cos = torch.nn.functional.normalize(e, dim=1) @ torch.nn.functional.normalize(w, dim=0)
    total = torch.zeros((), dtype=torch.float64)
    for i, y in enumerate(labels.tolist()):
        others = [j for j in range(w.shape[1]) if j != y]
        if name == "sface":
            theta = torch.acos(cos[i].detach())
            pull = scale / (1 + torch.exp(-80 * (theta[y] - 0.8)))
            push = scale / (1 + torch.exp(80 * (theta - 1.2)))
            total = total - pull * cos[i, y] + sum(push[j] * cos[i, j] for j in others)
            continue
        if name == "softmax":
            logits = e[i] @ w
        else:
            theta = torch.acos(cos[i, y])
            if name == "cosface":
                own = cos[i, y] - margin
            elif theta + margin <= math.pi:
                own = torch.cos(theta + margin)
            else:
                own = cos[i, y] - margin * math.sin(margin)
            logits = scale * torch.stack([own if j == y else cos[i, j] for j in range(w.shape[1])])
        total = total + torch.logsumexp(logits, 0) - logits[y]
    loss = total / len(labels)
    loss.backward()
    return loss.item(), e.grad.numpy(), w.grad.numpy()


SETTINGS = [
    ("softmax", 1.0, 0.0),
    ("cosface", 64.0, 0.35),
    ("cosface", 10.0, 0.0),
    ("arcface", 64.0, 0.5),
    ("arcface", 16.0, 0.3),
    ("arcface", 16.0, 0.0),
    ("sface", 64.0, 0.0),
    ("sface", 8.0, 0.0),
]


@pytest.mark.parametrize("name, scale, margin", SETTINGS)
def test_value_and_gradient(name, scale, margin):
    head = jax.value_and_grad(HEADS[name].loss, (0, 1))
    loss, gradients = jax.jit(head, static_argnums=(3, 4))(
        EMBEDDINGS, WEIGHTS, LABELS, scale, margin
    )
    wanted, *wanted_gradients = by_torch(name, EMBEDDINGS, WEIGHTS, scale, margin)
    np.testing.assert_allclose(loss, wanted, rtol=2e-5)
    for found, right in zip(gradients, wanted_gradients, strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-3, atol=2e-5 * np.abs(right).max())


def test_defaults_are_those_of_the_table():
    for name, head in HEADS.items():
        given = head.loss(EMBEDDINGS, WEIGHTS, LABELS, head.scale, head.margin)
        assert head.loss(EMBEDDINGS, WEIGHTS, LABELS) == given, name


def test_without_margin_they_are_the_softmax_of_scaled_cosines():
    unit = EMBEDDINGS / np.linalg.norm(EMBEDDINGS, axis=1, keepdims=True)
    directions = WEIGHTS / np.linalg.norm(WEIGHTS, axis=0, keepdims=True)
    wanted = softmax(16 * unit, directions, LABELS)
    for head in (cosface, arcface):
        np.testing.assert_allclose(head(EMBEDDINGS, WEIGHTS, LABELS, 16.0, 0.0), wanted, rtol=1e-5)


@pytest.mark.parametrize("name", ["cosface", "arcface", "sface"])
def test_lengths_do_not_matter(name):
    loss = HEADS[name].loss
    wanted = loss(EMBEDDINGS, WEIGHTS, LABELS)
    np.testing.assert_allclose(loss(7 * EMBEDDINGS, 0.1 * WEIGHTS, LABELS), wanted, rtol=1e-4)


def test_margins_fall_with_the_angle():
    """The logit of the own person falls all the way from 0 to pi: a nearer embedding costs less."""
    angles = np.linspace(0, math.pi, 200)
    embeddings = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    weights = np.array([[1, 0], [0, 0]], np.float32)  # the other person is nowhere
    for head in (cosface, arcface):
        losses = jax.vmap(lambda e, h=head: h(e[None], weights, jnp.zeros(1, int), 8.0, 0.5))(
            embeddings
        )
        assert np.all(np.diff(losses) > -1e-6)


def test_sface_stops_at_its_angles():
    """Hardly a gradient once theta_y < a and theta_j > b, a constant one on the other side."""
    weights = np.array([[1.0], [0.0]], np.float32)

    def pull(angle):
        embedding = jnp.array([[math.cos(angle), math.sin(angle)]])
        gradient = jax.grad(sface)(embedding, weights, jnp.zeros(1, int))
        return float(jnp.linalg.norm(gradient)) / math.sin(angle)

    assert pull(0.7) < 0.05 * 64
    np.testing.assert_allclose([pull(0.9), pull(2.0)], 64, rtol=1e-3)


@pytest.mark.parametrize("name", HEADS)
def test_finite_where_directions_vanish_or_agree(name):
    """Zero embeddings, and an embedding that is its person's direction or the opposite."""
    embeddings = np.stack([np.zeros(5), WEIGHTS[:, 1], -WEIGHTS[:, 2]]).astype(np.float32)
    value, gradients = jax.value_and_grad(HEADS[name].loss, (0, 1))(
        embeddings, WEIGHTS, np.array([0, 1, 2])
    )
    assert np.isfinite(value) and all(np.isfinite(g).all() for g in gradients)


def test_cosine():
    found = cosine(jnp.array([[3.0, 4.0], [0.0, 0.0]]), jnp.array([[1.0, 0.0], [0.0, -2.0]]))
    np.testing.assert_allclose(found, [[0.6, -0.8], [0, 0]], atol=1e-6)
