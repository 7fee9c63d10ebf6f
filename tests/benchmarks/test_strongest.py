"""The strongest peer makes what the published loop makes."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from benchmarks import exact_simplex, published_loop, strongest_torch  # noqa: E402

pytestmark = pytest.mark.torch
OBJECTIVES = 0.01  # relative, after six steps
RESIDUAL = 1e-3  # relative, of every QP


def unit(array):
    return array / np.linalg.norm(array, axis=-1, keepdims=True)


class Small(torch.nn.Module):
    """RGB f32[B,3,16,16] in 0..255 -> f32[B,8]."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 6, 3, 2, 1, bias=False)
        self.bn = torch.nn.BatchNorm2d(6)
        self.prelu = torch.nn.PReLU(6)
        self.head = torch.nn.Linear(6 * 64, 8)

    def forward(self, x):
        return self.head(self.prelu(self.bn(self.conv(x / 255))).flatten(1))


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = Small().eval()
    model.bn.running_var.uniform_(0.5, 2)
    model.bn.running_mean.uniform_(-1, 1)
    return model


def test_same_objectives_as_the_published_loop(model, monkeypatch):
    pytest.importorskip("cvxpy")
    monkeypatch.setattr(torch, "compile", lambda model: model)  # compiling takes half a minute
    rng = np.random.default_rng(0)
    photos = rng.integers(0, 256, (2, 4, 16, 16, 3), np.uint8)
    noise = rng.uniform(-8, 8, (4, 3, 16, 16)).astype(np.float32)
    data = torch.tensor(photos[0], dtype=torch.float32).permute(0, 3, 1, 2)
    model.register_forward_pre_hook(lambda _, given: given[0] - 127.5)  # as the benchmark has
    embed, _ = strongest_torch.fastest(model, data)
    np.testing.assert_allclose(embed(data).numpy(), model(data).detach(), rtol=1e-4, atol=1e-5)
    masks, losses = strongest_torch.generate(embed, photos, noise, steps=6, initial_steps=2)
    for person in range(2):
        _, wanted, _ = published_loop.generate(
            model, photos[person], 9, steps=6, initial_steps=2, noise=noise
        )
        np.testing.assert_allclose(losses[person], wanted, rtol=OBJECTIVES)
    assert masks.shape == (2, 3, 16, 16) and np.abs(masks).max() <= 8


def test_qp_is_accurate_enough():
    rng = np.random.default_rng(1)
    common = rng.standard_normal((3, 1, 64))
    clean = unit(common + 0.8 * rng.standard_normal((3, 10, 64)))
    masked = unit(0.4 * common + rng.standard_normal((3, 10, 64)))
    masked[:, 5:] = unit(clean[:, 5:] + 0.3 * masked[:, 5:])  # near a corner
    given = (torch.tensor(x, dtype=torch.float32) for x in (masked, clean))
    ours = np.linalg.norm(strongest_torch.nearest(*given).numpy() - masked, axis=-1)
    for person in range(3):
        exact = [exact_simplex.solve(clean[person], point) for point in masked[person]]
        best = np.linalg.norm(np.array(exact) @ clean[person] - masked[person], axis=-1)
        np.testing.assert_allclose(ours[person], best, rtol=RESIDUAL)


def test_without_a_compiler_it_stays_eager(model, monkeypatch):
    def compile(model):
        raise torch._dynamo.exc.BackendCompilerFailed("inductor", RuntimeError("no g++"), None)

    monkeypatch.setattr(torch, "compile", lambda model: compile)
    embed, form = strongest_torch.fastest(model, torch.zeros(2, 3, 16, 16))
    assert form.startswith("eager") and embed(torch.zeros(2, 3, 16, 16)).shape == (2, 8)
