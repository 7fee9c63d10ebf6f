"""The geometry and the light of a parametric head, aligned as face pipelines align photos.

The head is an ellipsoid with a jaw profile. Every pixel is traced back to it: the alignment is
undone and the ray meets the head at (x, y, z), x to the right of the picture, y down from the eye
line, z towards the camera; 1 is half the distance between the eyes. Features that stand above the
surface shift with the view. The relief bends the normals, and light falls on those.

All functions work on one face and broadcast over pixels f32[H,W]. Parameters are dicts of scalars,
`i` of a person and `p` of a photo, as `synthetic.identity` and `synthetic.appearance` give them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

SIZE = 112
# Eyes, nose tip, mouth corners (x, y) of an aligned 112x112 picture: the template of ArcFace.
TEMPLATE = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)

Scalars = dict[str, jax.Array]


class Surface(NamedTuple):
    """Where the ray of each pixel meets the head, f32[H,W] each.

    Attributes:
      x, y, z: the point.
      inside: above 0 where the head shows, about 0..1: its section through the centre.
      sx, sy: the pixel in the plane of the picture.
      tx, ty: shift of a point that stands 1 above the surface.
    """

    x: jax.Array
    y: jax.Array
    z: jax.Array
    inside: jax.Array
    sx: jax.Array
    sy: jax.Array
    tx: jax.Array
    ty: jax.Array


def smooth(x, low, high) -> jax.Array:
    """0 below low, 1 above high, a cubic between."""
    t = jnp.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def rotation_of(yaw, pitch) -> jax.Array:
    """f32[3,3], head to camera: yaw about y, then pitch about x, in radians."""
    cy, sy, cp, sp = jnp.cos(yaw), jnp.sin(yaw), jnp.cos(pitch), jnp.sin(pitch)
    return jnp.array([[cy, 0.0, sy], [sp * sy, cp, -sp * cy], [-cp * sy, sp, cp * cy]])


def axes(i: Scalars) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Radii and height of the centre of the ellipsoid."""
    half = (i["chin"] - i["crown"]) / 2
    return i["head_width"], half, i["head_depth"], i["chin"] - half


def profile(i: Scalars, y) -> jax.Array:
    """Width factor of the head at height y (from the centre of the picture plane)."""
    jaw = 1 + (i["jaw"] - 1) * smooth(y, 0.9, i["chin"] - 0.3)
    temple = 1 + (i["temple"] - 1) * smooth(-y, 0.3, 2.0)
    return jaw * temple * (1 + i["cheek"] * jnp.exp(-(((y - 0.9) / 0.8) ** 2)))


def _project(i: Scalars, rotation, x, y, height):
    """Picture plane (x, y) of a point that stands `height` above the front of the head."""
    a, b, c, middle = axes(i)
    z = c * jnp.sqrt(jnp.maximum(1 - (x / a) ** 2 - ((y - middle) / b) ** 2, 0.01)) + height
    q = rotation @ jnp.stack([x, y - middle, z])
    return q[0] * profile(i, q[1] + middle), q[1] + middle


def mouth(i: Scalars, p: Scalars) -> tuple[jax.Array, jax.Array]:
    """Half width and height of the corners of the mouth."""
    return i["mouth_width"] * (1 + 0.28 * p["smile"]), i["mouth_y"] - 0.16 * p["smile"]


def landmarks(i: Scalars, p: Scalars, rotation) -> jax.Array:
    """Eyes, nose tip, mouth corners in the picture plane as complex numbers x + iy: c64[5]."""
    wide, corner = mouth(i, p)
    eye = i["eye_spacing"]
    points = (
        (-eye, i["eye_y"], 0.0),
        (eye, i["eye_y"], 0.0),
        (0.0 * eye, i["nose_tip"], i["nose_height"]),
        (-wide, corner, 0.1),
        (wide, corner, 0.1),
    )
    projected = [_project(i, rotation, *point) for point in points]
    return jnp.stack([x + 1j * y for x, y in projected])


def alignment(i: Scalars, p: Scalars, rotation) -> tuple[jax.Array, jax.Array]:
    """The similarity transform (complex factor, offset) from picture plane to pixels.

    It brings the landmarks nearest to the template, as face pipelines do, and then misses a little,
    as detectors do.
    """
    z = landmarks(i, p, rotation)
    w = jnp.array([complex(x, y) for x, y in TEMPLATE])
    dz, dw = z - z.mean(), w - w.mean()
    factor = (jnp.conj(dz) * dw).sum() / (jnp.abs(dz) ** 2).sum()
    factor = factor * (1 + p["zoom"]) * jnp.exp(1j * p["roll"])
    return factor, w.mean() + p["shift_x"] + 1j * p["shift_y"] - factor * z.mean()


def trace(i: Scalars, p: Scalars, rotation) -> Surface:
    """Follows the ray of every pixel to the head."""
    factor, offset = alignment(i, p, rotation)
    rows, columns = jnp.mgrid[:SIZE, :SIZE].astype(jnp.float32)
    inverse = 1 / factor
    dx, dy = columns - offset.real, rows - offset.imag
    sx = dx * inverse.real - dy * inverse.imag
    sy = dx * inverse.imag + dy * inverse.real
    a, b, c, middle = axes(i)
    ux, uy = sx / profile(i, sy), sy - middle
    back = rotation.T
    o = [back[k, 0] * ux + back[k, 1] * uy for k in range(3)]
    radii = (a, b, c)
    aa = sum((back[k, 2] / radii[k]) ** 2 for k in range(3))
    bb = sum(o[k] * back[k, 2] / radii[k] ** 2 for k in range(3))
    cc = (o[0] / a) ** 2 + (o[1] / b) ** 2 + (o[2] / c) ** 2 - 1
    discriminant = bb**2 - aa * cc
    t = (-bb + jnp.sqrt(jnp.maximum(discriminant, 1e-3))) / aa
    x, y, z = (o[k] + t * back[k, 2] for k in range(3))
    front = jnp.maximum(back[2, 2], 0.3)
    return Surface(
        x, y + middle, z, -cc, sx, sy, back[0, 2] / front + 0 * x, back[1, 2] / front + 0 * x
    )


def folded(s: Surface, height: jax.Array | float = 0.0) -> tuple[jax.Array, jax.Array]:
    """Distance from the middle of what stands `height` above the face, and its side (-1, 1)."""
    x = s.x + height * s.tx
    return jnp.abs(x), jnp.where(x < 0, -1.0, 1.0)


def _relief(i: Scalars, p: Scalars):
    """Bumps (height, distance from the middle, y, radius x, radius y) that bend the normals."""
    nose, tip, age = i["nose_height"], i["nose_tip"], i["age"]
    width, eye, smile = i["nose_width"], i["eye_spacing"], p["smile"]
    wide, corner = mouth(i, p)
    return (
        (0.50 * nose, 0.0, 0.55 * tip, i["bridge"], 0.55 * tip),
        (0.55 * nose, 0.0, tip - 0.06, 0.55 * width, 0.30),
        (0.16 * nose, 0.75 * width, tip + 0.05, 0.35 * width, 0.20),
        (-i["eye_depth"], 0.95 * eye, i["eye_y"] - 0.1, 0.62, 0.36),
        (0.14, eye, i["eye_y"] + 0.05, 0.45, 0.26),
        (i["brow_ridge"], 0.9 * eye, i["eye_y"] - 0.85, 0.75, 0.25),
        (i["cheekbone"] + 0.25 * smile, 1.45, 1.05 - 0.1 * smile, 0.6, 0.5),
        (-0.10 - 0.2 * age - 0.2 * smile, 1.15, tip + 0.5, 0.22, 0.55),
        (-0.12 * age, 0.95, i["eye_y"] + 0.55, 0.5, 0.12),
        (0.12, 0.0, corner - 0.12, 0.8 * wide, 0.16),
        (0.16, 0.0, corner + 0.2, 0.6 * wide, 0.16),
        (-0.16, 0.0, corner + 0.5, 0.6, 0.14),
        (i["chin_bump"], 0.0, i["chin"] - 0.5, 0.6, 0.36),
        (-0.05 - 0.05 * i["upper_lip"], 0.0, (tip + corner) / 2 + 0.15, 0.10, 0.25),
    )


def _normals(i: Scalars, p: Scalars, s: Surface):
    """Unit normals in the head's frame: three f32[H,W]."""
    a, b, c, middle = axes(i)
    nx, ny, nz = s.x / a**2, (s.y - middle) / b**2, jnp.maximum(s.z, 0.0) / c**2 + 0.02
    length = jnp.sqrt(nx**2 + ny**2 + nz**2)
    gx = gy = jnp.zeros_like(s.x)
    for height, cx, cy, rx, ry in _relief(i, p):
        lift = jnp.maximum(height, 0.0)
        out, side = folded(s, lift)
        x, y = out - cx, s.y + lift * s.ty - cy
        bump = height * jnp.exp(-((x / rx) ** 2) - (y / ry) ** 2)
        gx, gy = gx - 2 * side * x / rx**2 * bump, gy - 2 * y / ry**2 * bump
    nx, ny, nz = nx / length - 0.55 * gx, ny / length - 0.55 * gy, nz / length
    length = jnp.sqrt(nx**2 + ny**2 + nz**2)
    return nx / length, ny / length, nz / length


def shade(i: Scalars, p: Scalars, s: Surface, rotation) -> tuple[jax.Array, jax.Array]:
    """Diffuse light and highlights: two f32[H,W]."""
    normal = _normals(i, p, s)
    cosine = jnp.cos(p["light_y"])
    light = jnp.stack(
        [jnp.sin(p["light_x"]) * cosine, -jnp.sin(p["light_y"]), jnp.cos(p["light_x"]) * cosine]
    )
    camera = jnp.array([0.0, 0.0, 1.0])
    half = light + camera
    half = half / jnp.sqrt((half**2).sum() + 1e-6)
    toward = [_along(normal, rotation.T @ to) for to in (light, camera, half)]
    directed = jnp.clip((toward[0] + 0.2) / 1.2, 0, 1)
    diffuse = p["directed"] * directed + (1 - p["directed"]) * (0.75 + 0.25 * toward[1])
    return diffuse, p["gloss"] * p["directed"] * jnp.clip(toward[2], 0, 1) ** 24


def _along(normal, to):
    return sum(component * to[k] for k, component in enumerate(normal))
