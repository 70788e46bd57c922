"""Runways."""

import numpy as np

from orl_ldm.images.synthetic.canvas import Canvas, Colour
from orl_ldm.images.synthetic.layout import Box, pick, shaded
from orl_ldm.images.synthetic.noise import mix, smoothstep

_GRASS = ((100, 108, 70), (118, 118, 80), (90, 98, 64), (140, 126, 88))
_PAVING = ((124, 120, 114), (98, 96, 96), (146, 140, 130), (112, 104, 98))

# Digits as strokes in a box of width 1 and height 2, y up.
_DIGITS: dict[str, list[list[tuple[float, float]]]] = {
    "0": [[(0, 0), (1, 0), (1, 2), (0, 2), (0, 0)]],
    "1": [[(0.5, 0), (0.5, 2), (0.15, 1.6)]],
    "2": [[(0, 2), (1, 2), (1, 1.1), (0, 0.6), (0, 0), (1, 0)]],
    "3": [[(0, 2), (1, 2), (1, 0), (0, 0)], [(0.3, 1), (1, 1)]],
    "4": [[(0.8, 0), (0.8, 2), (0, 0.7), (1, 0.7)]],
    "5": [[(1, 2), (0, 2), (0, 1.1), (1, 1.1), (1, 0), (0, 0)]],
    "6": [[(1, 2), (0, 1.2), (0, 0), (1, 0), (1, 1), (0, 1)]],
    "7": [[(0, 2), (1, 2), (0.4, 0)]],
    "8": [[(0, 0), (1, 0), (1, 2), (0, 2), (0, 0)], [(0, 1), (1, 1)]],
    "9": [[(0, 0), (1, 0.8), (1, 2), (0, 2), (0, 1), (1, 1)]],
}


def runway(canvas: Canvas) -> None:
    """A runway along x with its markings, tyre marks, shoulders and taxiways, in grass."""
    rng = canvas.rng
    grass, paving = pick(rng, _GRASS), pick(rng, _PAVING)
    dry = mix(grass, (150, 134, 100), smoothstep(-0.4, 1.8, canvas.noise(5, 0.35)))
    canvas.ground(dry * (1 + 0.07 * canvas.noise(64, 0.0))[..., None], 0.11)
    half, centre = float(rng.uniform(23, 44)), float(rng.uniform(-40, 40))
    reach = canvas.reach
    start = float(rng.uniform(-100, 20)) if rng.random() < 0.65 else -2 * reach  # of the runway proper: its threshold
    _taxiways(canvas, centre, half, max(start + 15, -110))
    left = start - float(rng.choice([0, 25, 300]))  # paved before the threshold: nothing, a blast pad or a stopway
    canvas.rect((max(left, -reach) - 5, centre - half - 7, reach, centre + half + 7), shaded(paving, 0.86), 0, 0.08)
    canvas.rect((max(left, -reach), centre - half, reach, centre + half), paving, 0, 0.07)
    _joints(canvas, (max(left, -reach), centre - half, reach, centre + half), paving)
    touchdown = start + 190 if start > -reach else float(rng.uniform(-100, 100))
    _tyre_marks(canvas, centre, half, touchdown)
    white = (226, 226, 220)
    for side in (-1, 1):
        canvas.path([(start, centre + side * (half - 2)), (reach, centre + side * (half - 2))], 1.4, white)
    for x in np.arange(start + 95, reach, 42).tolist():
        canvas.rect((x, centre - 0.6, x + 25, centre + 0.6), white)
    if start > -reach:
        _threshold(canvas, start, centre, half)
    for k, bars in enumerate((3, 1, 2, 2, 1)):
        x = touchdown - 60 + 75 * k
        for side in (-1, 1):
            for bar in range(bars):
                y = centre + side * (half * 0.3 + bar * 3.6)
                wide = 4.5 if bars == 1 else 2.0  # the single pair is the aiming point
                canvas.rect((x, min(y, y + side * wide), x + 24, max(y, y + side * wide)), white)
    if 0 > left > -reach:
        for x in np.arange(left + 4, start - 10, 16).tolist():
            for side in (-1, 1):
                canvas.path([(x, centre + side * half * 0.8), (x + 14, centre)], 1.1, (204, 176, 70))


def _taxiways(canvas: Canvas, centre: float, half: float, first: float) -> None:
    """A parallel taxiway and exits to it from x = `first` on, with yellow lines, perhaps an aircraft."""
    rng = canvas.rng
    paving, yellow = pick(rng, _PAVING), (206, 174, 60)
    side, distance, width = float(rng.choice([-1, 1])), half + float(rng.uniform(45, 90)), float(rng.uniform(15, 22))
    lane = centre + side * distance
    reach = canvas.reach
    canvas.rect((-reach, lane - width / 2 - 3, reach, lane + width / 2 + 3), shaded(paving, 0.88), 0, 0.08)
    canvas.rect((-reach, lane - width / 2, reach, lane + width / 2), paving, 0, 0.07)
    canvas.path([(-reach, lane), (reach, lane)], 0.8, yellow)
    for x in rng.uniform(first, 120, int(rng.integers(1, 4))).tolist():
        lean = float(rng.choice([0, 0, -45, 45]))
        t = np.linspace(0, 1, 16)
        line = np.stack([x + lean * t, centre + side * (half - 2) + (lane - centre - side * (half - 2)) * t], 1)
        canvas.path(line, width + 5, shaded(paving, 0.88), 0, 0.08)
        canvas.path(line, width, paving, 0, 0.07)
        canvas.path(line, 0.8, yellow)
        for offset in (0.0, 1.6):  # the holding position
            y = centre + side * (half + 18 + offset)
            at = x + lean * (y - line[0, 1]) / (line[-1, 1] - line[0, 1])
            canvas.path([(at - width / 2, y), (at + width / 2, y)], 0.6, yellow)
    if rng.random() < 0.5:
        _aircraft(canvas, float(rng.uniform(-80, 80)), lane)


def _joints(canvas: Canvas, box: Box, paving: Colour) -> None:
    """Lanes of paving of slightly different age, with joints or sealed cracks."""
    rng = canvas.rng
    x0, y0, x1, y1 = box
    lanes = np.linspace(y0, y1, int(rng.integers(5, 9)))
    for a, b in zip(lanes[:-1].tolist(), lanes[1:].tolist(), strict=True):
        canvas.rect((x0, a, x1, b), (*shaded(paving, float(rng.normal(1, 0.03))), 200))
        canvas.path([(x0, a), (x1, a)], 0.35, (*shaded(paving, 0.7), 170))
    for x in np.arange(x0, x1, float(rng.choice([12, 18, 60]))).tolist():
        canvas.path([(x, y0), (x, y1)], 0.35, (*shaded(paving, 0.75), 120))
    for _ in range(int(rng.integers(0, 5))):
        x, y, w, d = rng.uniform(x0, x1), rng.uniform(y0, y1 - 8), rng.uniform(8, 50), rng.uniform(3, 8)
        canvas.rect((x, y, x + w, y + d), (*shaded(paving, float(rng.choice([0.75, 0.85, 1.12]))), 190))


def _tyre_marks(canvas: Canvas, centre: float, half: float, touchdown: float) -> None:
    """Streaks of rubber about the touchdown zone, densest where the main wheels land."""
    rng = canvas.rng
    count = int(rng.integers(50, 220))
    sides = rng.choice([-1, 1], count) * half * rng.uniform(0.12, 0.2)
    ys = centre + sides + rng.normal(0, half * 0.11, count)
    xs, lengths = touchdown + rng.normal(0, 60, count), rng.uniform(20, 110, count)
    drift = rng.normal(0, 0.8, count)
    for x, y, length, slip in zip(xs.tolist(), ys.tolist(), lengths.tolist(), drift.tolist(), strict=True):
        canvas.path([(x, y), (x + length, y + slip)], float(rng.uniform(0.6, 1.6)), (36, 34, 36, 62))


def _threshold(canvas: Canvas, start: float, centre: float, half: float) -> None:
    """The bars across the runway's start and its number, read by a pilot who flies towards +x."""
    white = (228, 228, 222)
    canvas.rect((start, centre - half + 1, start + 1.6, centre + half - 1), white)
    pitch = (half - 5) / 4
    for side in (-1, 1):
        for bar in range(4):
            y = centre + side * (2.2 + pitch * (bar + 0.5))
            canvas.rect((start + 6, y - pitch * 0.29, start + 42, y + pitch * 0.29), white)
    number = f"{int(canvas.rng.integers(1, 37)):02d}"
    width = half * 0.3
    for digit, across in zip(number, (-width * 1.25, width * 0.25), strict=True):
        for stroke in _DIGITS[digit]:
            canvas.path([(start + 54 + 11 * v, centre + across + width * u) for u, v in stroke], 2.6, white)


def _aircraft(canvas: Canvas, x: float, y: float) -> None:
    """An airliner of about 36 units, nose towards +x or -x."""
    rng = canvas.rng
    facing, size = float(rng.choice([-1, 1])), float(rng.uniform(13, 20))
    white, grey = (232, 232, 230), (196, 198, 202)

    def shape(outline: list[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(x + facing * u * size, y + v * size) for u, v in outline]

    for side in (-1, 1):
        canvas.polygon(
            shape([(0.25, 0.06 * side), (-0.35, 0.95 * side), (-0.5, 0.95 * side), (-0.15, 0.06 * side)]), grey, 3
        )
        canvas.polygon(
            shape([(-0.75, 0.05 * side), (-1.0, 0.38 * side), (-1.08, 0.38 * side), (-0.98, 0.03 * side)]), grey, 4
        )
        canvas.polygon(
            shape([(0.2, 0.3 * side), (0.2, 0.4 * side), (-0.08, 0.4 * side), (-0.08, 0.3 * side)]), (150, 152, 158), 2
        )
    hull = [
        (1.0, 0),
        (0.9, 0.07),
        (0.75, 0.1),
        (-0.6, 0.1),
        (-1.05, 0.02),
        (-1.05, -0.02),
        (-0.6, -0.1),
        (0.75, -0.1),
        (0.9, -0.07),
    ]
    canvas.polygon(shape(hull), white, 4, 0.02)
    canvas.polygon(
        shape([(-0.75, 0.02), (-1.1, 0.02), (-1.1, -0.02), (-0.75, -0.02)]),
        pick(rng, ((60, 80, 150), (170, 50, 50), (90, 96, 110))),
        8,
    )
