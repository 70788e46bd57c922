"""Things that stand in several scenes: cars, parking lots, roofs, streets."""

import numpy as np

from orl_ldm.images.synthetic.canvas import Canvas, Colour
from orl_ldm.images.synthetic.layout import Box, pick, shaded, turned_box
from orl_ldm.images.synthetic.noise import mix, smoothstep

CARS: tuple[Colour, ...] = (
    *((225, 225, 225), (190, 192, 196), (120, 124, 130), (48, 50, 54)),
    *((30, 32, 36), (150, 40, 36), (46, 66, 110), (200, 190, 170)),
)


def car(canvas: Canvas, x: float, y: float, angle: float, length: float = 7.2) -> None:
    """A car with a dark windscreen and rear window."""
    colour, width = pick(canvas.rng, CARS), length * 0.43
    if not canvas.sees(x, y, length):
        return
    canvas.polygon(turned_box(x, y, length, width, angle), colour, 1.6, 0.02)
    for offset, depth in ((0.14, 0.12), (-0.3, 0.08)):
        glass = (x + np.cos(angle) * offset * length, y + np.sin(angle) * offset * length)
        canvas.polygon(turned_box(*glass, depth * length, width * 0.8, angle), shaded(colour, 0.35))


def traffic(canvas: Canvas, start: tuple[float, float], end: tuple[float, float], spacing: float, lane: float) -> None:
    """Cars in both lanes of a straight road, about `spacing` apart."""
    (x0, y0), (x1, y1) = start, end
    angle, length = float(np.arctan2(y1 - y0, x1 - x0)), float(np.hypot(x1 - x0, y1 - y0))
    for side in (-1, 1):
        at = canvas.rng.uniform(0, spacing)
        while at < length:
            t, off = at / length, side * lane
            car(canvas, x0 + (x1 - x0) * t - np.sin(angle) * off, y0 + (y1 - y0) * t + np.cos(angle) * off, angle)
            at += 9 + canvas.rng.exponential(spacing)


def parking_lot(canvas: Canvas, box: Box, fullness: float) -> None:
    """Asphalt with double rows of marked stalls along x, some of them taken."""
    x0, y0, x1, y1 = box
    canvas.rect(box, pick(canvas.rng, ((88, 88, 88), (104, 102, 98), (74, 75, 78))), 0, 0.09)
    stall, depth, aisle = 4.0, 8.4, 10.0
    columns = np.arange(x0 + 3, x1 - 3, stall)
    for y in np.arange(y0 + depth + 1, y1 - depth, 2 * depth + aisle):
        starts = np.stack([columns, np.full_like(columns, y - depth)], 1)
        canvas.strokes(starts, starts + np.array([0, 2 * depth]), 0.35, (205, 205, 200))
        for x in columns[:-1]:
            for side in (-1, 1):
                if canvas.rng.random() < fullness:
                    car(canvas, float(x) + stall / 2, float(y) + side * depth / 2, side * np.pi / 2)


def pitched_roof(canvas: Canvas, box: Box, colour: Colour, eaves: float, rise: float, hip: float = 0.0) -> None:
    """A roof with its ridge along the longer side; `hip` (0..1) slopes its ends, 0 being a gable."""
    x0, y0, x1, y1 = box
    lengthwise = x1 - x0 >= y1 - y0
    length, width = (x1 - x0, y1 - y0) if lengthwise else (y1 - y0, x1 - x0)
    end, cx, cy = hip * width / 2, (x0 + x1) / 2, (y0 + y1) / 2

    def place(along: float, across: float) -> tuple[float, float]:
        return (cx + along, cy + across) if lengthwise else (cx + across, cy + along)

    a, b, ridge = length / 2, width / 2, length / 2 - end
    faces = [
        ((0.0, 1.0), [(-a, b), (a, b), (ridge, 0), (-ridge, 0)]),
        ((0.0, -1.0), [(-a, -b), (a, -b), (ridge, 0), (-ridge, 0)]),
        ((1.0, 0.0), [(a, -b), (a, b), (ridge, 0)]),
        ((-1.0, 0.0), [(-a, -b), (-a, b), (-ridge, 0)]),
    ]
    for (along, across), corners in faces[: 4 if hip > 0 else 2]:
        normal = (along, across) if lengthwise else (across, along)
        light = 0.86 + 0.3 * canvas.lit(normal)
        canvas.polygon([place(*corner) for corner in corners], shaded(colour, light), eaves + rise / 3, 0.09)
    canvas.path([place(-ridge, 0), place(ridge, 0)], 0.7, shaded(colour, 1.12), eaves + rise)


def asphalt(canvas: Canvas) -> None:
    dark, light = pick(canvas.rng, ((84, 84, 86), (98, 96, 94), (74, 75, 78))), (122, 119, 114)
    canvas.ground(mix(dark, light, smoothstep(-1, 2.5, canvas.noise(6, 0.3))), 0.07)
