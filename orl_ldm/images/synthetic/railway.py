"""Railway stations."""

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from orl_ldm.images.synthetic.canvas import Canvas
from orl_ldm.images.synthetic.layout import Box, inset, lots, pick, shaded
from orl_ldm.images.synthetic.noise import mix, smoothstep
from orl_ldm.images.synthetic.props import parking_lot, pitched_roof, traffic
from orl_ldm.images.synthetic.trees import plant

_BALLAST = ((124, 112, 100), (110, 104, 98), (136, 122, 106))
_TRAINS = (
    (188, 188, 186),
    (92, 104, 120),
    (150, 60, 52),
    (120, 124, 118),
    (206, 204, 198),
    (70, 96, 82),
    (104, 84, 72),
)
_GAUGE, _SPACING = 2.6, 8.5


def railway_station(canvas: Canvas) -> None:
    """Parallel tracks along x with trains, covered platforms, points, a footbridge and a station building."""
    rng = canvas.rng
    town, ballast = pick(rng, ((132, 128, 120), (116, 116, 100), (104, 108, 84))), pick(rng, _BALLAST)
    canvas.ground(mix(town, shaded(town, 0.8), smoothstep(-1, 1.5, canvas.noise(5, 0.3))), 0.15)
    platforms = int(rng.integers(2, 5))
    y, tracks, islands = 0.0, [], []
    for _ in range(platforms):
        for _ in range(int(rng.integers(1, 4))):
            tracks.append(y)
            y += _SPACING
        islands.append((y - _SPACING / 2 + 0.6, y + 9.4 - _SPACING / 2))
        y += 9.5
    tracks += [y + _SPACING * k for k in range(int(rng.integers(1, 4)))]
    shift = -(tracks[-1] / 2) + float(rng.uniform(-18, 18))
    tracks = [t + shift for t in tracks]
    top, bottom = tracks[0] - 8, tracks[-1] + 8
    stained = pick(rng, ((92, 82, 74), (84, 80, 78)))
    canvas.rect((-canvas.reach, top, canvas.reach, bottom), ballast, 0, 0.16)
    for t in tracks:
        canvas.rect((-canvas.reach, t - 2.9, canvas.reach, t + 2.9), (*stained, 110))
    throat = float(rng.uniform(40, 130)) * float(
        rng.choice([-1, 1])
    )  # beyond it the platforms end and the tracks cross over
    for t in tracks:
        _track(canvas, [(-canvas.reach, t), (canvas.reach, t)])
    for a, b in pairwise(tracks):
        if rng.random() < 0.7:
            ramp = np.linspace(0, 1, 12)
            turn = throat + np.sign(throat) * rng.uniform(6, 40)
            x = turn + (ramp - 0.5) * (b - a) * 4.5 * float(rng.choice([-1, 1]))
            _track(canvas, np.stack([x, a + (b - a) * (3 * ramp**2 - 2 * ramp**3)], 1))
    ends = sorted((-np.sign(throat) * rng.uniform(110, 190), throat - np.sign(throat) * 12))
    for low, high in islands:
        _platform(canvas, (ends[0], low + shift, ends[1], high + shift))
    for t in tracks:
        if rng.random() < 0.55:
            _train(canvas, t)
    for x in np.arange(-canvas.reach + rng.uniform(0, 40), canvas.reach, 45):
        canvas.wire((x, top), (x, bottom), 0.6, (150, 152, 152), 7)  # gantries of the overhead line
    if rng.random() < 0.6:
        x = float(rng.uniform(ends[0] + 20, ends[1] - 20))
        canvas.rect((x - 3.5, top - 6, x + 3.5, bottom + 4), (186, 184, 178), 9, 0.05)
        canvas.path([(x, top - 6), (x, bottom + 4)], 1.2, (150, 150, 150))
    _forecourt(canvas, top, ends)
    _outskirts(canvas, (-canvas.reach, bottom + 3, canvas.reach, max(bottom + 40, canvas.reach)))


def _track(canvas: Canvas, points: npt.ArrayLike) -> None:
    """Sleepers and two rails along a polyline (N, 2)."""
    line = np.asarray(points, np.float64)
    steps = np.diff(line, axis=0)
    lengths = np.hypot(*steps.T)
    at = np.arange(0, lengths.sum(), 1.9)
    along = np.concatenate([[0], np.cumsum(lengths)])
    middle = np.stack([np.interp(at, along, line[:, k]) for k in (0, 1)], 1)
    step = steps[np.minimum(np.searchsorted(along, at, side="right") - 1, len(steps) - 1)]
    across = np.stack([-step[:, 1], step[:, 0]], 1) / np.hypot(*step.T)[:, None]
    canvas.strokes(middle - across * 2.1, middle + across * 2.1, 0.75, (88, 80, 74))
    for side in (-_GAUGE / 2, _GAUGE / 2):
        rail = line + np.array([0, side])
        canvas.path(rail + np.array([0, 0.25]), 0.5, (66, 56, 52))
        canvas.path(rail, 0.5, (186, 180, 174))


def _platform(canvas: Canvas, box: Box) -> None:
    """A platform with edge lines and a ribbed canopy over part of it."""
    rng = canvas.rng
    x0, y0, x1, y1 = box
    canvas.rect(box, pick(rng, ((176, 172, 164), (158, 152, 146))), 1.3, 0.07)
    for y in (y0 + 0.9, y1 - 0.9):
        canvas.path([(x0, y), (x1, y)], 0.5, (222, 212, 150))
    length = (x1 - x0) * float(rng.uniform(0.4, 0.95))
    a = float(rng.uniform(x0, x1 - length))
    roof = pick(rng, ((150, 154, 158), (196, 194, 188), (124, 116, 110), (108, 124, 132)))
    pitched_roof(canvas, (a, y0 + 0.7, a + length, y1 - 0.7), roof, 4.5, 0.8)
    ribs = np.arange(a + 2, a + length, 5.5)
    canvas.strokes([(r, y0 + 0.7) for r in ribs], [(r, y1 - 0.7) for r in ribs], 0.5, (*shaded(roof, 0.7), 150))


def _train(canvas: Canvas, y: float) -> None:
    """Wagons of one or several kinds on the track at y."""
    rng = canvas.rng
    freight, livery = rng.random() < 0.35, pick(rng, _TRAINS)
    x, length = float(rng.uniform(-1.1, 0.4)) * canvas.reach, float(rng.uniform(15, 20) if freight else 34)
    for _ in range(int(rng.integers(3, 12))):
        colour = pick(rng, _TRAINS) if freight else livery
        box = (x, y - 2.4, x + length, y + 2.4)
        canvas.rect(box, shaded(colour, 0.9), 4, 0.05)
        canvas.rect((x + 0.5, y - 1.3, x + length - 0.5, y + 1.3), shaded(colour, 1.12))
        if freight and rng.random() < 0.5:
            canvas.rect(inset(box, 0.8), (70, 62, 56), 3.2, 0.3)  # an open wagon with its load
        elif not freight:
            for u in np.arange(x + 5, x + length - 5, 8.0).tolist():
                canvas.rect((u, y - 1, u + 3.2, y + 1), shaded(colour, 0.7), 4.6)
        x += length + 1.2


def _forecourt(canvas: Canvas, top: float, ends: list[float]) -> None:
    """The station building, the street before it and what lies beyond."""
    rng = canvas.rng
    length, depth = float(rng.uniform(60, 120)), float(rng.uniform(18, 30))
    x, roof = (
        float(rng.uniform(ends[0], max(ends[0] + 1, ends[1] - length))),
        pick(rng, ((168, 162, 152), (140, 92, 76), (118, 122, 128))),
    )
    canvas.rect((-canvas.reach, top - depth - 26, canvas.reach, top - 2), (160, 156, 148), 0, 0.09)
    pitched_roof(canvas, (x, top - depth - 5, x + length, top - 5), roof, 8, 3, 0.8)
    hall = x + length * float(rng.uniform(0.3, 0.6))
    pitched_roof(canvas, (hall - 9, top - depth - 9, hall + 9, top - 4), shaded(roof, 1.05), 10, 4, 0.4)
    for a, b in ((-canvas.reach, x - 6), (x + length + 6, canvas.reach)):
        if b - a > 30:
            parking_lot(canvas, (a, top - depth - 6, b, top - 5), 0.6)
    road = top - depth - 18
    canvas.rect((-canvas.reach, road - 7, canvas.reach, road + 7), (92, 92, 92), 0, 0.07)
    traffic(canvas, (-canvas.reach, road), (canvas.reach, road), 32, 3.5)
    _outskirts(canvas, (-canvas.reach, min(road - 60, -canvas.reach), canvas.reach, road - 9))


def _outskirts(canvas: Canvas, box: Box) -> None:
    """Buildings and trees beside the railway."""
    rng = canvas.rng
    for lot in lots(rng, box, 40, 5):
        kind = rng.random()
        if kind < 0.65:
            roof = pick(rng, ((150, 148, 146), (128, 92, 78), (186, 182, 176), (110, 104, 100)))
            pitched_roof(canvas, inset(lot, float(rng.uniform(1, 5))), roof, float(rng.uniform(5, 11)), 2.5, 0.7)
        elif kind < 0.9:
            count = int(rng.integers(4, 14))
            plant(canvas, rng.uniform(lot[:2], lot[2:], (count, 2)), rng.uniform(2.5, 5, count))
