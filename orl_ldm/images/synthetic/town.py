"""Commercial and residential areas."""

from itertools import pairwise

import numpy as np

from orl_ldm.images.synthetic.canvas import Canvas, Colour
from orl_ldm.images.synthetic.layout import Box, cuts, inset, lots, pick, shaded
from orl_ldm.images.synthetic.props import asphalt, car, parking_lot, pitched_roof, traffic
from orl_ldm.images.synthetic.trees import BROADLEAF, LAWNS, garden, plant

_FLAT_ROOFS = (
    (188, 186, 180),
    (150, 148, 146),
    (206, 202, 192),
    (112, 110, 110),
    (170, 156, 138),
    (134, 120, 108),
    (82, 82, 86),
)
_TILES = ((134, 92, 74), (112, 100, 92), (92, 90, 92), (150, 112, 90), (126, 122, 118), (104, 82, 70))


def commercial_area(canvas: Canvas) -> None:
    """Blocks of large flat roofs with plant on them, towers, parking lots and wide streets."""
    rng = canvas.rng
    asphalt(canvas)
    street = float(rng.uniform(13, 19))
    fullness, greenery = float(rng.uniform(0.35, 0.85)), float(rng.uniform(0.02, 0.14))
    xs, ys = (cuts(canvas, 75, 130) for _ in range(2))
    for x in xs:
        _street_marks(canvas, (x, -canvas.reach), (x, canvas.reach))
    for y in ys:
        _street_marks(canvas, (-canvas.reach, y), (canvas.reach, y))
    for x0, x1 in pairwise(xs):
        for y0, y1 in pairwise(ys):
            block = inset((x0, y0, x1, y1), street / 2)
            canvas.rect(block, pick(rng, ((168, 164, 156), (150, 146, 140))), 0, 0.08)
            for lot in lots(rng, inset(block, 3), 58, 2.5):
                kind = rng.random()
                if kind < greenery:
                    garden(canvas, lot, 0.012)
                elif kind < greenery + 0.22:
                    parking_lot(canvas, lot, fullness)
                else:
                    _flat_building(canvas, inset(lot, float(rng.uniform(0, 4))))
            if rng.random() < 0.6:
                _street_trees(canvas, block)


def dense_residential(canvas: Canvas) -> None:
    """Rows of small pitched roofs back to back, with gardens, drives, cars and trees."""
    rng = canvas.rng
    asphalt(canvas)
    street, depth = float(rng.uniform(9, 13)), float(rng.uniform(27, 36))
    width, hip = float(rng.uniform(15, 23)), float(rng.choice([0.0, 0.0, 0.6, 0.9]))
    palette = [pick(rng, _TILES) for _ in range(int(rng.integers(1, 5)))]
    lawn, leafiness = pick(rng, LAWNS), float(rng.uniform(0.3, 1.6))
    crossings = cuts(canvas, 130, 200)
    trees: list[tuple[float, float]] = []
    for row in np.arange(-canvas.reach - rng.uniform(0, 60), canvas.reach + depth, 2 * depth + street).tolist():
        for x0, x1 in pairwise(crossings):
            canvas.rect((x0 + street / 2, row, x1 - street / 2, row + 2 * depth), (165, 160, 152), 0, 0.08)
            for facing in (-1, 1):
                x = x0 + street / 2 + 1.5
                while x < x1 - street / 2 - width * 0.7:
                    w = min(width * float(rng.uniform(0.85, 1.2)), x1 - street / 2 - 1.5 - x)
                    lot = (
                        (x, row + 2, x + w, row + depth) if facing < 0 else (x, row + depth, x + w, row + 2 * depth - 2)
                    )
                    _house(
                        canvas, lot, facing, pick(rng, palette, 0.05), shaded(lawn, float(rng.uniform(0.8, 1.15))), hip
                    )
                    spots = rng.poisson(leafiness)
                    trees += [
                        (x + rng.uniform(1, w - 1), row + depth + facing * rng.uniform(0, 7)) for _ in range(spots)
                    ]
                    if rng.random() < 0.25 * leafiness:
                        trees.append((x + rng.uniform(1, w - 1), row + depth + facing * (depth - 4)))
                    x += w
        traffic(canvas, (-canvas.reach, row - street / 2), (canvas.reach, row - street / 2), 45, street / 2 - 2)
    plant(canvas, trees, rng.uniform(1.8, 5.2, len(trees)), BROADLEAF)


def _street_marks(canvas: Canvas, start: tuple[float, float], end: tuple[float, float]) -> None:
    """A dashed centre line and traffic on both sides."""
    a, b = np.asarray(start), np.asarray(end)
    length = float(np.hypot(*(b - a)))
    at = np.arange(0, length, 9.0)[:, None] / length
    canvas.strokes(a + (b - a) * at, a + (b - a) * (at + 4 / length), 0.5, (214, 208, 180))
    traffic(canvas, start, end, 30, 3.4)


def _flat_building(canvas: Canvas, box: Box) -> None:
    """A flat roof with a parapet, sometimes an upper storey or a notch, and machines on top."""
    rng = canvas.rng
    x0, y0, x1, y1 = box
    roof, height = pick(rng, _FLAT_ROOFS), float(rng.uniform(5, 11) if rng.random() < 0.7 else rng.uniform(14, 32))
    canvas.rect(box, shaded(roof, 1.15), height + 0.9, 0.05)
    canvas.rect(inset(box, 1.1), roof, height, 0.11)
    if rng.random() < 0.35 and min(x1 - x0, y1 - y0) > 22:
        fx, fy = rng.uniform(0.35, 0.6, 2)
        tower = (x0 + 2, y0 + 2, x0 + (x1 - x0) * fx, y0 + (y1 - y0) * fy)
        upper, height = pick(rng, _FLAT_ROOFS), height + float(rng.uniform(4, 12))
        canvas.rect(tower, shaded(upper, 1.12), height + 0.9, 0.05)
        box = inset(tower, 1.1)
        canvas.rect(box, upper, height, 0.1)
    _rooftop(canvas, inset(box, 2.5), height, roof)


def _rooftop(canvas: Canvas, box: Box, height: float, roof: Colour) -> None:
    """Seams, patches, machines with their housings, rows of fans and ducts."""
    rng = canvas.rng
    x0, y0, x1, y1 = box
    if min(x1 - x0, y1 - y0) < 6:
        return
    for x in np.arange(x0, x1, float(rng.uniform(7, 14))):
        canvas.path([(x, y0), (x, y1)], 0.4, (*shaded(roof, 0.85), 150))
    for _ in range(int(rng.integers(3, 8 + int((x1 - x0) * (y1 - y0) / 90)))):
        w, d = np.clip(rng.lognormal(1.1, 0.5, 2), 1.5, 11)
        x, y = rng.uniform(x0, x1 - w * 0.5), rng.uniform(y0, y1 - d * 0.5)
        unit = (x, y, min(x + w, x1), min(y + d, y1))
        if rng.random() < 0.25:
            canvas.rect(unit, shaded(roof, float(rng.uniform(0.7, 1.25))))  # a patch in the roofing
        else:
            canvas.rect(
                unit, pick(rng, ((205, 205, 202), (150, 152, 154), (110, 112, 114))), height + rng.uniform(1, 3)
            )
            canvas.rect(inset(unit, 0.35 * min(w, d) / 2), (104, 106, 108))
    if rng.random() < 0.5:
        y = float(rng.uniform(y0, y1))
        for x in np.arange(x0 + 1, x1 - 1, 4.0):
            canvas.disc(float(x), y, 1.1, (196, 196, 194), height + 1.2)
            canvas.disc(float(x), y, 0.6, (70, 72, 74))


def _house(canvas: Canvas, lot: Box, facing: int, roof: Colour, lawn: Colour, hip: float) -> None:
    """A house on its lot: garden behind, drive and perhaps a car before; `facing` is -1 or 1 along y."""
    rng = canvas.rng
    x0, y0, x1, y1 = lot
    canvas.rect((x0, y0, x1 - 0.5, y1), lawn, 0, 0.17)
    front = y0 if facing < 0 else y1
    setback, depth = float(rng.uniform(5, 8)), (y1 - y0) * float(rng.uniform(0.46, 0.56))
    near, far = front - facing * setback, front - facing * (setback + depth)
    drive = x0 + 1.2 if rng.random() < 0.5 else x1 - 6.4
    canvas.rect((drive, min(front, near), drive + 5, max(front, near)), (176, 172, 164), 0, 0.05)
    if rng.random() < 0.35:
        car(canvas, drive + 2.5, front - facing * 4, np.pi / 2, 6.4)
    house = (x0 + 1.3, min(near, far), x1 - 1.8, max(near, far))
    pitched_roof(canvas, house, roof, 4.5, 3, hip)
    if rng.random() < 0.6:
        wing_x = float(rng.uniform(house[0], max(house[0] + 0.1, house[2] - 7)))
        wing = (
            wing_x,
            house[1] - 2.5 if facing < 0 else house[3] - 7,
            wing_x + 7,
            house[1] + 7 if facing < 0 else house[3] + 2.5,
        )
        pitched_roof(canvas, wing, roof, 4.8, 2.6, 0)
    if rng.random() < 0.4:
        x, y = rng.uniform(house[0] + 2, house[2] - 2), (near + far) / 2 + rng.uniform(-3, 3)
        canvas.rect((x, y, x + 1.2, y + 1.2), (138, 110, 98), 9)
    behind = far - facing * rng.uniform(3, 5)
    if rng.random() < 0.12:
        canvas.disc(float(rng.uniform(x0 + 4, x1 - 4)), behind, 2.4, (96, 170, 184), 0, 0.02)
    elif rng.random() < 0.25:
        shed_x = float(rng.uniform(x0 + 1, x1 - 5))
        canvas.rect(
            (shed_x, behind - 1.6, shed_x + 3.6, behind + 1.6), pick(rng, ((150, 146, 140), (120, 104, 90))), 2.4
        )


def _street_trees(canvas: Canvas, block: Box) -> None:
    """A row of trees along one kerb of a block."""
    x0, y0, x1, y1 = block
    xs = np.arange(x0 + 4, x1 - 4, float(canvas.rng.uniform(8, 13)))
    xs = xs[canvas.rng.random(len(xs)) < 0.75]
    plant(
        canvas,
        np.stack([xs, np.full_like(xs, canvas.rng.choice([y0 + 1, y1 - 1]))], 1),
        canvas.rng.uniform(2, 3.4, len(xs)),
    )
