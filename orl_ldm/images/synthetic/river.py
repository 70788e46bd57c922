"""Rivers."""

import numpy as np
import numpy.typing as npt

from orl_ldm.images.synthetic.canvas import Canvas
from orl_ldm.images.synthetic.layout import Box, Places, everywhere, inset, jittered_grid, lots, pick, sample
from orl_ldm.images.synthetic.noise import Floats, mix, resized, smoothstep
from orl_ldm.images.synthetic.props import pitched_roof, traffic
from orl_ldm.images.synthetic.trees import BROADLEAF, plant

_FIELDS = ((92, 104, 62), (118, 120, 76), (150, 138, 98), (82, 92, 58), (128, 110, 82), (104, 118, 66), (166, 152, 112))
_WATERS = ((58, 78, 76), (84, 98, 78), (44, 62, 70), (104, 100, 80), (70, 92, 92))


def river(canvas: Canvas) -> None:
    """A meandering river with banks, sandbars and riverside woods between fields, sometimes bridged."""
    rng = canvas.rng
    x, y = canvas.grid()
    meander = _Meander(canvas)
    outline = canvas.patches(4, 0.5)
    wobble = resized(outline, canvas.size) + 0.2 * canvas.noise(32, 0.3)
    width = float(rng.uniform(12, 32))
    shore = np.asarray(meander.distance(x, y) - width + 2.2 * wobble, np.float32)  # > 0 on land
    wild = pick(rng, ((90, 94, 64), (112, 108, 78), (76, 84, 56), (140, 122, 92), (64, 76, 54)))
    land = mix(wild, np.multiply(wild, (0.72, 0.8, 0.7)), smoothstep(-0.7, 1.2, canvas.noise(8, 0.1)))
    canvas.ground(land, 0.18)
    if rng.random() < 0.65:
        for field in lots(rng, everywhere(canvas), float(rng.uniform(40, 80)), 2.0):
            _field(canvas, field)
            if rng.random() < 0.08:
                _village(canvas, inset(field, 3))
    land = np.asarray(canvas.colour.resize((canvas.size, canvas.size)), np.float32)
    water = pick(rng, _WATERS)
    ripples = 1 + 0.03 * canvas.noise(32, 0.1) + 0.07 * canvas.noise(3, 0.7)
    depth = mix(np.multiply(water, 1.25) + 8, water, smoothstep(0, -9, shore)) * ripples[..., None]
    sand = pick(rng, ((178, 162, 128), (160, 148, 122), (190, 178, 150)))
    beach = smoothstep(6, 1.5, shore) * smoothstep(-0.6, 0.6, wobble + np.float32(rng.uniform(-0.8, 0.8)))
    bend = np.sin(x / np.float32(rng.uniform(35, 60)) + np.float32(rng.uniform(0, 6)))
    bars = smoothstep(0.75, 1.15, bend * 0.9 + 0.45 * canvas.noise(6, 0.5)) * smoothstep(-14, -5, shore)
    scene = mix(mix(land, np.multiply(wild, 0.62), smoothstep(14, 4, shore) * 0.7), sand, beach)
    scene = mix(scene, mix(depth, sand, bars * np.float32(rng.uniform(0, 0.9))), smoothstep(0.9, -0.9, shore))
    canvas.ground(scene, 0.03 + 0.15 * smoothstep(-1, 2, shore))
    places = jittered_grid(canvas, 5.0)
    inland = meander.distance(*places.T) - width + 2.2 * sample(canvas, outline, places)
    cover = sample(canvas, canvas.patches(5, 0.3), places)
    bank_woods = (inland > 4) & (inland < rng.uniform(12, 40)) & (cover > rng.uniform(-0.8, 0.3))
    places = places[bank_woods | ((inland > 4) & (cover > rng.uniform(1.0, 2.0)))]
    plant(canvas, places, rng.uniform(2.0, 4.2, len(places)), BROADLEAF)
    if rng.random() < 0.4:
        _bridge(canvas, meander, width)


class _Meander:
    """The river's middle line y(x): two sines, so that no two bends are alike."""

    def __init__(self, canvas: Canvas) -> None:
        rng = canvas.rng
        self.amplitudes = np.array([rng.uniform(15, 50), rng.uniform(3, 14)])
        self.wavelengths = np.array([rng.uniform(38, 62), rng.uniform(16, 26)])  # per radian
        self.phases = rng.uniform(0, 2 * np.pi, 2)
        self.offset = rng.uniform(-25, 25)

    def at(self, x: npt.ArrayLike) -> Places:
        """y of the middle line, in x's shape."""
        angle = np.asarray(x)[..., None] / self.wavelengths + self.phases
        return np.asarray(self.offset + np.sin(angle) @ self.amplitudes)

    def slope(self, x: npt.ArrayLike) -> Places:
        """dy/dx of the middle line, in x's shape."""
        angle = np.asarray(x)[..., None] / self.wavelengths + self.phases
        return np.asarray(np.cos(angle) @ (self.amplitudes / self.wavelengths))

    def distance(self, x: npt.ArrayLike, y: npt.ArrayLike) -> Floats:
        """About how far points are from the middle line, more or less 2 so that the river's width changes."""
        narrowing = 2 * np.sin(np.asarray(x) / 50 + self.offset)
        return np.asarray(np.abs(np.asarray(y) - self.at(x)) / np.hypot(1, self.slope(x)) + narrowing, np.float32)


def _field(canvas: Canvas, box: Box) -> None:
    """A field with the furrows or rows of its crop."""
    rng = canvas.rng
    colour = pick(rng, _FIELDS)
    canvas.rect(box, colour, grain=float(rng.uniform(0.05, 0.15)))
    x0, y0, x1, y1 = box
    furrow = tuple(c * rng.uniform(0.78, 0.95) for c in colour)
    if rng.random() < 0.5:
        rows = np.arange(y0 + 2, y1 - 1, float(rng.uniform(2.2, 4)))
        canvas.strokes([(x0 + 1, r) for r in rows], [(x1 - 1, r) for r in rows], 0.9, furrow)
    else:
        rows = np.arange(x0 + 2, x1 - 1, float(rng.uniform(2.2, 4)))
        canvas.strokes([(r, y0 + 1) for r in rows], [(r, y1 - 1) for r in rows], 0.9, furrow)


def _bridge(canvas: Canvas, meander: _Meander, half: float) -> None:
    """A road across the picture along y, carried over the river on a deck."""
    rng = canvas.rng
    x, width = float(rng.uniform(-60, 60)), float(rng.uniform(6, 11))
    road, middle = [(x, -1.2 * canvas.reach), (x, 1.2 * canvas.reach)], float(meander.at(x))
    span = (half + 10) * float(np.hypot(1, meander.slope(x)))
    canvas.path(road, width, (104, 102, 100), 0, 0.06)
    canvas.path(
        [(x, middle - span), (x, middle + span)], width * 1.25, pick(rng, ((158, 156, 150), (128, 126, 122))), 4
    )
    canvas.path(road, width * 0.75, (90, 90, 92))
    canvas.path(road, 0.5, (215, 212, 200))
    traffic(canvas, road[0], road[1], 70, width * 0.19)


def _village(canvas: Canvas, box: Box) -> None:
    """Houses and trees about a lane."""
    rng = canvas.rng
    roofs = [pick(rng, ((140, 96, 78), (120, 112, 106), (152, 120, 98))) for _ in range(3)]
    for lot in lots(rng, box, 13, 4):
        if rng.random() < 0.6:
            pitched_roof(canvas, inset(lot, float(rng.uniform(0, 2))), pick(rng, roofs), 4, 2.5)
    plant(canvas, rng.uniform(box[:2], box[2:], (12, 2)), rng.uniform(1.5, 3.5, 12))
