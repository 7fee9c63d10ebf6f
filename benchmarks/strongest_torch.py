"""OPOM-ConvexHull masks as fast as PyTorch makes them on this machine: the fairest peer.

The masks of `published_loop.py`, but: all people of a batch together, no gradients of weights,
clean features once, batch norms folded into convolutions, channels last, eager or compiled,
whichever is faster, and the QPs of all photos at once on their Gram matrices. Axis letters: `P`
people, `N` photos of a person, `H W` image, `D` embedding.
"""

import copy
from collections.abc import Callable
from itertools import pairwise
from time import perf_counter

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.nn.utils.fusion import fuse_conv_bn_eval

ITERATIONS = 60  # of the QP: relative residual error below 1e-3, tests/benchmarks

Embed = Callable[[Tensor], Tensor]


def project(point: Tensor) -> Tensor:
    """Nearest points [...,N] of the simplex, without sorting.

    A coordinate stays above 0 if what the others rise above it adds up to less than 1.
    """
    above = (point[..., None, :] - point[..., :, None]).relu_().sum(-1)
    kept = (above < 1).to(point)
    shift = ((point * kept).sum(-1, keepdim=True) - 1) / kept.sum(-1, keepdim=True)
    return (point - shift).relu_()


def nearest(masked: Tensor, clean: Tensor) -> Tensor:
    """Nearest points f32[P,N,D] of the convex hulls of `clean` f32[P,N,D] to `masked` f32[P,N,D].

    Accelerated projected gradient with restarts on the centred Gram matrices, fixed work.
    """
    centre = clean.mean(1, keepdim=True)
    edges = clean - centre
    gram = edges @ edges.mT
    scale = gram.abs().sum(-1).amax(-1)[:, None, None]
    gram, linear = gram / scale, (masked - centre) @ edges.mT / scale
    a = ahead = torch.full_like(linear, 1 / linear.shape[-1])
    inertia = torch.ones_like(a[..., :1])
    for _ in range(ITERATIONS):
        moved = project(ahead - torch.baddbmm(linear, ahead, gram, beta=-1))
        uphill = ((ahead - moved) * (moved - a)).sum(-1, keepdim=True) > 0
        grown = (1 + (1 + 4 * inertia**2).sqrt()) / 2
        ahead = torch.where(uphill, moved, moved + (inertia - 1) / grown * (moved - a))
        inertia = torch.where(uphill, 1.0, grown)
        a = moved
    return a @ clean


def fastest(model: nn.Module, images: Tensor) -> tuple[Embed, str]:
    """The network in its fastest form for a batch like `images`.

    Args:
      model: takes RGB f32[B,3,H,W] in 0..255.
      images: f32[B,3,H,W].

    Returns:
      f32[B,3,H,W] -> f32[B,D], and the form: "eager" or "inductor" with how the other did.
    """
    eager = folded(model)
    forms: dict[str, Embed] = {"eager": eager, "inductor": torch.compile(eager)}
    try:
        seconds = {name: _seconds(embed, images) for name, embed in forms.items()}
    except torch._dynamo.exc.TorchDynamoException:
        return eager, "eager (inductor has no compiler here)"
    best, other = sorted(forms, key=seconds.__getitem__)
    return forms[best], f"{best} ({other} takes {seconds[other] / seconds[best]:.2f} times as long)"


def folded(model: nn.Module) -> nn.Module:
    """A frozen copy, channels last, with the batch norms folded into convolutions listed before."""
    model = copy.deepcopy(model).eval().requires_grad_(False)
    for parent in list(model.modules()):
        for (name, layer), (next_name, following) in pairwise(list(parent.named_children())):
            if isinstance(layer, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
                setattr(parent, name, fuse_conv_bn_eval(layer, following))
                setattr(parent, next_name, nn.Identity())
    return model.to(memory_format=torch.channels_last)


def _seconds(embed: Embed, images: Tensor) -> float:
    """Of a forward and backward pass, the faster of two after one that may compile."""
    taken = []
    for _ in range(3):
        began = perf_counter()
        given = images.clone(memory_format=torch.channels_last).requires_grad_()
        torch.autograd.grad(embed(given).square().sum(), given)[0].sum().item()
        taken.append(perf_counter() - began)
    return min(taken[1:])


def generate(
    embed: Embed,
    photos: np.ndarray,
    noise: np.ndarray,
    device: torch.device | str = "cpu",
    steps: int = 16,
    epsilon: float = 8.0,
    step_size: float = 1.0,
    initial_steps: int = 5,
) -> tuple[np.ndarray, np.ndarray]:
    """Masks of a batch of people.

    Args:
      embed: of `fastest`.
      photos: u8[P,N,H,W,3] RGB.
      noise: f32[N,3,H,W] random start of everybody.
      device: of the network.
      steps: number of steps.
      epsilon: bound of the mask, in 0..255 units.
      step_size: size of a step, in the same units.
      initial_steps: steps towards which the class centre stands for the hull.

    Returns:
      masks f32[P,3,H,W] in [-epsilon, epsilon], and the ascended scalar f32[P,T] of each step.
    """
    people, count = photos.shape[:2]
    data = torch.as_tensor(photos, device=device).flatten(0, 1).permute(0, 3, 1, 2).float()

    def of_people(array: Tensor) -> Tensor:
        return array.unflatten(0, (people, count))

    def features(images: Tensor) -> Tensor:
        return of_people(normalize(embed(images)))

    clean = features(data.clone().requires_grad_()).detach()  # as in the steps: one compilation
    centre = clean.mean(1, keepdim=True).expand_as(clean)
    masked = data + torch.as_tensor(noise, device=device).repeat(people, 1, 1, 1)
    mask, losses = torch.zeros_like(of_people(data)[:, 0]), []
    for step in range(steps):
        masked.requires_grad_()
        seen = features(masked)
        hull = centre if step < initial_steps else nearest(seen.detach(), clean)
        loss = (seen - hull).square().mean((1, 2))
        (gradient,) = torch.autograd.grad(loss.sum(), masked)
        losses.append(loss.detach())
        direction = of_people(gradient).mean(1, keepdim=True).sign()
        moved = of_people(masked.detach() - data) + step_size * direction
        mask = moved.mean(1).clamp(-epsilon, epsilon)
        masked = (of_people(data) + mask[:, None]).flatten(0, 1).clamp(0.0, 255.0)
    return mask.cpu().numpy(), torch.stack(losses, 1).cpu().numpy()
