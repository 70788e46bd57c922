"""Trees: crowns of random shape, lit by the canvas's sun."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from orl_ldm.images.synthetic.canvas import HEIGHT_STEPS, Canvas, Colour
from orl_ldm.images.synthetic.layout import Box, pick
from orl_ldm.images.synthetic.noise import Floats, resized

BROADLEAF: tuple[Colour, ...] = ((62, 74, 46), (74, 86, 52), (54, 68, 46), (88, 94, 62), (64, 76, 56))
CONIFER: tuple[Colour, ...] = ((40, 55, 44), (48, 62, 48), (36, 50, 40))
LAWNS = ((98, 112, 68), (112, 116, 78), (84, 100, 60), (130, 124, 90))
_TEMPLATE = 40  # pixels across a tree before it is scaled
_SHAPES = 5


def plant(
    canvas: Canvas,
    places: npt.ArrayLike,
    radii: npt.ArrayLike,
    colours: Sequence[Colour] = BROADLEAF,
    conifer: bool = False,
    tallness: float = 1.2,
) -> None:
    """Trees at places (N, 2) with crowns of the given radii (N,), each of a random shape and colour."""
    radii = np.asarray(radii, np.float64)
    shapes_drawn = min(_SHAPES, 1 + len(radii) // 8)
    templates = [_crown(canvas, conifer) for _ in range(shapes_drawn)]
    tints = [pick(canvas.rng, colours, 0.12) for _ in range(5)]
    sprites: dict[tuple[int, int, int], tuple[Image.Image, Image.Image, Image.Image]] = {}
    pixels = canvas.pixels(np.reshape(np.asarray(places, np.float64), (-1, 2)))
    shapes, shades = (
        canvas.rng.integers(shapes_drawn, size=len(pixels)),
        canvas.rng.integers(len(tints), size=len(pixels)),
    )
    for (u, v), radius, shape, shade in zip(pixels, radii, shapes.tolist(), shades.tolist(), strict=True):
        side = max(2, round(2 * radius * canvas.scale))
        side -= side % max(1, side // 6)  # about six sizes per doubling are enough, and keep the sprites few
        if (side, shape, shade) not in sprites:
            sprites[side, shape, shade] = _sprite(
                templates[shape], side, tints[shade], side / 2 / canvas.scale * tallness * HEIGHT_STEPS
            )
        corner = (round(u - side / 2), round(v - side / 2))
        colour, height, alpha = sprites[side, shape, shade]
        canvas.colour.paste(colour, corner, alpha)
        canvas.height.paste(height, corner, alpha)
        canvas.grain.paste(60, (*corner, corner[0] + side, corner[1] + side), alpha)


def _sprite(
    template: tuple[Floats, Floats, Floats], side: int, tint: Colour, level: float
) -> tuple[Image.Image, Image.Image, Image.Image]:
    """A tree's colour, height and alpha, side pixels across."""
    light, dome, alpha = (resized(layer, side) for layer in template)
    rgb = np.clip(light[..., None] * np.asarray(tint, np.float32), 0, 255).astype(np.uint8)
    grey = np.clip(dome * level, 0, 255).astype(np.uint8)
    return Image.fromarray(rgb), Image.fromarray(grey), Image.fromarray((np.clip(alpha, 0, 1) * 255).astype(np.uint8))


def _crown(canvas: Canvas, conifer: bool) -> tuple[Floats, Floats, Floats]:
    """A crown's light (about 1), height (0..1) and alpha (0..1), each (40, 40), lit by the canvas's sun."""
    rng = canvas.rng
    axis = np.linspace(-1, 1, _TEMPLATE, dtype=np.float32)
    u, v = np.meshgrid(axis, axis)
    distance, angle = np.hypot(u, v), np.arctan2(v, u)
    lobes, depth = (int(rng.integers(6, 10)), 0.14) if conifer else (int(rng.integers(3, 6)), 0.07)
    edge = (
        0.8 + depth * np.cos(lobes * angle + rng.uniform(0, 6)) + 0.06 * np.cos((lobes + 3) * angle + rng.uniform(0, 6))
    )
    inside = np.clip(1 - distance / edge, 0, 1)
    dome = inside if conifer else np.sqrt(inside * (2 - inside))
    bumps = np.zeros_like(dome)
    for _ in range(9 if conifer else 14):
        x, y, spread = rng.normal(0, 0.42), rng.normal(0, 0.42), rng.uniform(0.1, 0.2)
        bumps += np.exp(-((u - x) ** 2 + (v - y) ** 2) / (2 * spread**2)) * rng.uniform(0.1, 0.35)
    relief = dome * (1 + bumps) - 0.15
    slope = np.gradient(relief, axis, axis)
    towards = slope[1] * canvas.away[0] + slope[0] * canvas.away[1]
    light = np.clip(0.85 + 0.34 * towards + 0.3 * (relief - 0.6), 0.3, 1.75)
    alpha = np.clip((edge - distance) * 7 + 0.2, 0, 1)
    return light.astype(np.float32), np.clip(relief, 0, 1.2).astype(np.float32), alpha.astype(np.float32)


def garden(canvas: Canvas, box: Box, density: float) -> None:
    """A lawn with trees, `density` of them per square unit."""
    rng = canvas.rng
    canvas.rect(box, pick(rng, LAWNS), 0, 0.17)
    count = int((box[2] - box[0]) * (box[3] - box[1]) * density)
    plant(canvas, rng.uniform(box[:2], box[2:], (count, 2)), rng.uniform(2.5, 5.5, count))
