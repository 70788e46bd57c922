"""Industrial areas."""

from itertools import pairwise

import numpy as np

from orl_ldm.images.synthetic.canvas import Canvas, Colour
from orl_ldm.images.synthetic.layout import Box, inset, lots, pick, shaded, turned_box
from orl_ldm.images.synthetic.noise import mix, smoothstep
from orl_ldm.images.synthetic.props import parking_lot, pitched_roof
from orl_ldm.images.synthetic.trees import garden

_SHEDS = (
    (176, 180, 184),
    (96, 128, 176),
    (200, 200, 196),
    (150, 152, 152),
    (164, 92, 78),
    (120, 146, 160),
    (176, 164, 146),
)
_CONTAINERS = (
    (164, 62, 52),
    (58, 88, 136),
    (182, 178, 170),
    (74, 118, 84),
    (196, 128, 58),
    (96, 96, 104),
    (122, 66, 56),
)


def industrial_area(canvas: Canvas) -> None:
    """Long ribbed sheds, storage tanks, container yards and lorries on concrete and dirt."""
    rng = canvas.rng
    dirt, concrete = pick(rng, ((140, 128, 110), (124, 116, 104), (150, 142, 130))), (150, 148, 144)
    canvas.ground(mix(dirt, concrete, smoothstep(-0.6, 0.8, canvas.noise(4, 0.4))), 0.13)
    palette = [pick(rng, _SHEDS) for _ in range(int(rng.integers(2, 4)))]
    weights = rng.dirichlet([6, 1.6, 1.6, 0.8, 0.8])
    for plot in lots(rng, (-canvas.reach, -canvas.reach, canvas.reach, canvas.reach), 110, 11.0):
        canvas.path([(plot[0] - 5.5, plot[1]), (plot[0] - 5.5, plot[3])], 9, (98, 97, 96), grain=0.08)
        canvas.path([(plot[0], plot[1] - 5.5), (plot[2], plot[1] - 5.5)], 9, (98, 97, 96), grain=0.08)
        canvas.rect(plot, pick(rng, ((148, 146, 142), (128, 124, 118), dirt)), grain=0.12)
        for lot in lots(rng, inset(plot, 3), 62, 7.0):
            kind = int(rng.choice(5, p=weights))
            if kind == 0:
                _shed(canvas, lot, pick(rng, palette, 0.05))
            elif kind == 1:
                _tanks(canvas, lot)
            elif kind == 2:
                _containers(canvas, lot)
            elif kind == 3:
                parking_lot(canvas, lot, 0.5)
            else:
                garden(canvas, lot, 0.01)
            if rng.random() < 0.6:
                _lorry(canvas, lot[0] - 3.5, float(rng.uniform(lot[1], lot[3])))


def _shed(canvas: Canvas, box: Box, colour: Colour) -> None:
    """A long shed of one or more ribbed gable spans with rows of skylights and vents on the ridge."""
    rng = canvas.rng
    x0, y0, x1, y1 = box
    lengthwise = x1 - x0 > y1 - y0
    low, high = (y0, y1) if lengthwise else (x0, x1)
    start, end = (x0, x1) if lengthwise else (y0, y1)
    spans, height = max(1, round((high - low) / rng.uniform(14, 30))), float(rng.uniform(6, 10))
    edges = np.linspace(low, high, spans + 1).tolist()
    ribs, panels = np.arange(start + 1.5, end, float(rng.uniform(1.8, 2.8))), rng.random() < 0.6

    def place(along: float, across: float) -> tuple[float, float]:
        return (along, across) if lengthwise else (across, along)

    for a, b in pairwise(edges):
        span = (start, a, end, b) if lengthwise else (a, start, b, end)
        pitched_roof(canvas, span, colour, height, 1.5)
        canvas.strokes([place(r, a) for r in ribs], [place(r, b) for r in ribs], 0.5, (*shaded(colour, 0.72), 110))
        for r in ribs[3:-3:4] if panels else ():
            for third in (0.25, 0.75):
                y = a + (b - a) * third
                canvas.path(
                    [place(r, y - (b - a) * 0.13), place(r, y + (b - a) * 0.13)], 1.3, (*shaded(colour, 1.3), 230)
                )
        for r in ribs[2:-2:6]:
            canvas.disc(*place(float(r), (a + b) / 2), 0.8, (205, 205, 202), height + 2.5)


def _tanks(canvas: Canvas, box: Box) -> None:
    """Round tanks in rows with shaded cone roofs, a rim and a bund wall round them all."""
    rng = canvas.rng
    x0, y0, x1, y1 = box
    canvas.rect(box, (168, 162, 150), 1.2, 0.1)
    canvas.rect(inset(box, 0.9), (140, 134, 122), 0, 0.14)
    radius = float(rng.uniform(5, min(15, (min(x1 - x0, y1 - y0) - 4) / 2.2)))
    colour, height = pick(rng, ((214, 212, 206), (188, 182, 172), (160, 150, 138))), float(rng.uniform(6, 12))
    angles = np.linspace(0, 2 * np.pi, 17)
    for x in np.arange(x0 + radius + 2, x1 - radius, 2.5 * radius):
        for y in np.arange(y0 + radius + 2, y1 - radius, 2.5 * radius):
            canvas.disc(float(x), float(y), radius, shaded(colour, 1.08), height, 0.04)
            for a, b in pairwise(angles):
                wedge = [(x, y)] + [(x + 0.93 * radius * np.cos(t), y + 0.93 * radius * np.sin(t)) for t in (a, b)]
                light = 0.9 + 0.14 * canvas.lit((float(np.cos((a + b) / 2)), float(np.sin((a + b) / 2))))
                canvas.polygon(wedge, shaded(colour, light))
            canvas.disc(float(x), float(y), radius * 0.12, shaded(colour, 0.6), height + 1)
    canvas.path([(x0, y0 - 2), (x1, y0 - 2)], 1.0, (176, 174, 168), 1.5)


def _containers(canvas: Canvas, box: Box) -> None:
    """Stacks of containers in rows, some bays empty."""
    rng = canvas.rng
    x0, y0, x1, y1 = box
    canvas.rect(box, (128, 126, 122), 0, 0.1)
    for x in np.arange(x0 + 1, x1 - 9, 10.5).tolist():
        for y in np.arange(y0 + 1, y1 - 3.5, 3.7).tolist():
            if (y - y0) // 3.7 % 6 < 5 and rng.random() < 0.8:
                colour = pick(rng, _CONTAINERS)
                canvas.rect((x, y, x + 9.6, y + 3.3), colour, 2.4 * float(rng.integers(1, 4)), 0.06)
                canvas.path([(x, y + 1.6), (x + 9.6, y + 1.6)], 0.5, shaded(colour, 0.8))


def _lorry(canvas: Canvas, x: float, y: float) -> None:
    """A lorry with a cab, parked along y."""
    canvas.polygon(
        turned_box(x, y, 15, 4, np.pi / 2), pick(canvas.rng, ((220, 218, 212), (150, 154, 160), (90, 110, 140))), 4
    )
    canvas.polygon(
        turned_box(x, y + 9.6, 3.4, 3.8, np.pi / 2),
        pick(canvas.rng, ((210, 208, 204), (150, 50, 44), (60, 80, 120))),
        3,
    )
