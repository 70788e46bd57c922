"""Where things stand: lots, streets, scattered places, and colours that vary from one thing to the next."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from orl_ldm.images.synthetic.canvas import Canvas, Colour
from orl_ldm.images.synthetic.noise import Floats

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in ground units
Places = npt.NDArray[np.float64]  # (N, 2) ground units


def pick(rng: np.random.Generator, colours: Sequence[Colour], jitter: float = 0.07) -> Colour:
    """One of the colours, a little lighter or darker and a little off in hue."""
    base = np.asarray(colours[int(rng.integers(len(colours)))], np.float64)
    return tuple((base * rng.normal(1, jitter) * rng.normal(1, jitter / 4, 3)).tolist())


def shaded(colour: Colour, factor: float) -> Colour:
    """The colour, brighter (above 1) or darker."""
    return tuple(channel * factor for channel in colour[:3])


def everywhere(canvas: Canvas) -> Box:
    """A box that covers the picture at any rotation."""
    return -canvas.reach, -canvas.reach, canvas.reach, canvas.reach


def inset(box: Box, margin: float) -> Box:
    """The box, smaller by the margin on every side."""
    return box[0] + margin, box[1] + margin, box[2] - margin, box[3] - margin


def lots(rng: np.random.Generator, box: Box, side: float, gap: float) -> Iterator[Box]:
    """Split a box in two again and again, across its longer side, until the pieces are about `side` long."""
    x0, y0, x1, y1 = box
    if max(x1 - x0, y1 - y0) < side * rng.uniform(1.0, 1.7):
        yield box
        return
    halves: tuple[Box, Box]
    if x1 - x0 > y1 - y0:
        cut = x0 + (x1 - x0) * float(rng.uniform(0.35, 0.65))
        halves = (x0, y0, cut - gap / 2, y1), (cut + gap / 2, y0, x1, y1)
    else:
        cut = y0 + (y1 - y0) * float(rng.uniform(0.35, 0.65))
        halves = (x0, y0, x1, cut - gap / 2), (x0, cut + gap / 2, x1, y1)
    for half in halves:
        yield from lots(rng, half, side, gap)


def cuts(canvas: Canvas, low: float, high: float) -> list[float]:
    """Where streets cross an axis: from beyond one edge of the picture to beyond the other, low..high apart."""
    at = [-canvas.reach - float(canvas.rng.uniform(0, low))]
    while at[-1] < canvas.reach:
        at.append(at[-1] + float(canvas.rng.uniform(low, high)))
    return at


def turned_box(x: float, y: float, length: float, width: float, angle: float) -> list[tuple[float, float]]:
    """The four corners of a rectangle about x, y whose length points along the angle."""
    cos, sin = math.cos(angle) / 2, math.sin(angle) / 2
    halves = ((length, width), (length, -width), (-length, -width), (-length, width))
    return [(x + cos * a - sin * b, y + sin * a + cos * b) for a, b in halves]


def scattered(canvas: Canvas, count: int, spread: float) -> Places:
    """Places (count, 2), most of them in six loose groups `spread` units wide."""
    rng, reach = canvas.rng, canvas.reach
    groups = rng.uniform(-reach, reach, (6, 2))
    near = groups[rng.integers(6, size=count)] + rng.normal(0, spread, (count, 2))
    return np.where(rng.random((count, 1)) < 0.6, near, rng.uniform(-reach, reach, (count, 2)))


def jittered_grid(canvas: Canvas, step: float) -> Places:
    """Places (N, 2) about `step` apart that are in the picture, in random order."""
    axis = np.arange(-canvas.reach, canvas.reach, step)
    places = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    places = canvas.rng.permutation(places + canvas.rng.uniform(-0.48, 0.48, places.shape) * step)
    shares = canvas.pixels(places) / canvas.colour.width
    return np.asarray(places[((shares > -0.04) & (shares < 1.04)).all(1)])


def sample(canvas: Canvas, field: Floats, places: Places) -> Places:
    """A square field over the picture read at places (N, 2): (N,)."""
    side = len(field)
    u, v = np.clip(canvas.pixels(places) * side / canvas.colour.width, 0, side - 1).astype(int).T
    return np.asarray(field[v, u], np.float64)
