"""The published OPOM mask loop (`FIM.process`) in PyTorch and cvxpy: the peer to measure against.

Written anew from the description, costs included: one cvxpy problem per photo and step, built
from scratch each time and solved by the default solver, and, as released, gradients of the
weights and of the clean features that nothing uses. Axis letters: `N` photos of a person, `H W`
image, `D` embedding.
"""

from time import perf_counter

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss, normalize

LOSS_TYPES = {
    0: "FI-UAP",
    2: "FI-UAP+",
    7: "OPOM-ClassCenter",
    8: "OPOM-AffineHull",
    9: "OPOM-ConvexHull",
}


def project(
    point: np.ndarray, hull: np.ndarray, lower: float | None = None, upper: float | None = None
) -> np.ndarray:
    """Coefficients of the point of a hull that is nearest to `point`, by one cvxpy problem.

    Args:
      point: f32[D].
      hull: f32[N,D].
      lower: least coefficient; None for the affine hull.
      upper: greatest coefficient; None for the affine hull.

    Returns:
      f64[N] coefficients that add up to 1.
    """
    import cvxpy as cp

    coefficients = cp.Variable(len(hull))
    constraints = [cp.sum(coefficients) == 1]
    if lower is not None:
        constraints.append(coefficients >= lower)
    if upper is not None:
        constraints.append(coefficients <= upper)
    distance = cp.sum_squares(hull.T @ coefficients - point)
    cp.Problem(cp.Minimize(distance), constraints).solve()
    return coefficients.value


def nearest(masked: Tensor, clean: Tensor, lower: float | None, upper: float | None) -> Tensor:
    """Nearest points f32[N,D] of the hull of `clean` f32[N,D]; constant coefficients."""
    points, hull = masked.detach().cpu().numpy(), clean.detach().cpu().numpy()
    rows = np.stack([project(point, hull, lower, upper) for point in points])
    return torch.from_numpy(rows).to(clean) @ clean


def objective(
    masked: Tensor, clean: Tensor, loss_type: int, lower: float = 0.0, upper: float = 1.0
) -> tuple[Tensor, float]:
    """The scalar that is ascended, and the seconds that the solver took.

    Args:
      masked: f32[N,D] raw features of the masked photos.
      clean: f32[N,D] raw features of the clean photos.
      loss_type: a key of `LOSS_TYPES`.
      lower: least coefficient of type 9.
      upper: greatest coefficient of type 9.

    Returns:
      f32[] the mean squared error over N*D of unit features from their targets (type 2: minus
      the mean cosine of all N*N pairs), and the seconds.
    """
    masked, clean = normalize(masked), normalize(clean)
    if loss_type == 0:
        return mse_loss(masked, clean), 0.0
    if loss_type == 2:
        return -(masked @ clean.T).mean(), 0.0
    bounds = {
        7: (1 / len(clean), 1 / len(clean)),  # the solver is run for the mean too, as published
        8: (None, None),
        9: (lower, upper),
    }
    import cvxpy  # noqa: F401  (the first import takes seconds, which are not the solver's)

    start = perf_counter()
    targets = nearest(masked, clean, *bounds[loss_type])
    seconds = perf_counter() - start
    return mse_loss(masked, targets), seconds


def uniform_noise(shape: tuple[int, ...], epsilon: float) -> Tensor:
    """The published start, f32[shape] in [-epsilon, epsilon): CPU draw after `manual_seed(0)`."""
    generator = torch.Generator().manual_seed(0)
    return torch.empty(shape).uniform_(-epsilon, epsilon, generator=generator)


def generate(
    model: nn.Module,
    images: Tensor | np.ndarray,
    loss_type: int,
    steps: int = 16,
    epsilon: float = 8.0,
    step_size: float = 1.0,
    initial_steps: int = 5,
    lower: float = 0.0,
    upper: float = 1.0,
    noise: Tensor | np.ndarray | None = None,
    weight_gradients: bool = True,
) -> tuple[np.ndarray, list[float], float]:
    """One person's mask by the published loop.

    Args:
      model: takes RGB f32[N,3,H,W] in 0..255; put in eval mode.
      images: u8[N,H,W,3] RGB.
      loss_type: a key of `LOSS_TYPES`.
      steps: number of steps.
      epsilon: bound of the mask, in 0..255 units.
      step_size: size of a step, in the same units.
      initial_steps: type 9 runs its first steps as type 7.
      lower: least coefficient of type 9.
      upper: greatest coefficient of type 9.
      noise: f32[N,3,H,W] random start; None draws the published one (see `uniform_noise`).
      weight_gradients: True as released: the backward pass also goes to the weights, and through
        the clean features' graph. False: weights frozen, clean features constant; same mask.

    Returns:
      mask f32[3,H,W] in [-epsilon, epsilon], the ascended scalar of each step, and the seconds
      spent on building and solving the cvxpy problems.

    Raises:
      ValueError: if the loss type is not known.
    """
    if loss_type not in LOSS_TYPES:
        raise ValueError(f"loss_type {loss_type} is none of {sorted(LOSS_TYPES)}")
    device = next(model.parameters()).device
    model.eval()
    flags = [p.requires_grad for p in model.parameters()]
    model.requires_grad_(weight_gradients)
    data = torch.as_tensor(images).to(device, torch.float32).permute(0, 3, 1, 2).contiguous()
    if noise is None:
        noise = uniform_noise(tuple(data.shape), epsilon)
    masked = data + torch.as_tensor(noise).to(data)
    with torch.set_grad_enabled(weight_gradients):
        clean = model(data)

    mask = torch.zeros_like(data[0])
    losses, solver_seconds = [], 0.0
    for step in range(steps):
        masked = masked.detach().requires_grad_()
        kind = 7 if loss_type == 9 and step < initial_steps else loss_type
        loss, seconds = objective(model(masked), clean, kind, lower, upper)
        model.zero_grad()
        loss.backward(retain_graph=weight_gradients)
        losses.append(loss.item())
        solver_seconds += seconds
        with torch.no_grad():
            moved = masked + step_size * masked.grad.mean(0).sign()
            mask = (moved - data).mean(0).clamp(-epsilon, epsilon)
            masked = (data + mask).clamp(0.0, 255.0)

    model.zero_grad()
    for parameter, flag in zip(model.parameters(), flags, strict=True):
        parameter.requires_grad_(flag)
    return mask.cpu().numpy(), losses, solver_seconds
