"""An antialiased canvas with colour, height and roughness, photographed from above under one sun.

Scenes are laid out in ground units: the origin is the picture's centre and, at zoom 1, the picture is 256 units wide
whatever its size in pixels. The canvas turns the layout by a random angle, keeps a height for everything that stands up
and works out all cast shadows from it at once, so that they agree.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from orl_ldm.images.synthetic.noise import Floats, fractal

Colour = Sequence[float]  # R, G, B and optionally alpha, 0..255
Points = npt.ArrayLike  # (N, 2) ground units

SUPERSAMPLING = 3
HEIGHT_STEPS = 4  # grey levels of the height image per ground unit
_WIDTH = 256.0  # ground units across the picture at zoom 1
_AMBIENT = np.array([0.36, 0.42, 0.52], np.float32)  # skylight, which fills shadows, is blue


class Canvas:
    """The layers of a scene while it is drawn; `develop` turns them into a picture."""

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        self.rng = rng
        self.size = size
        turn, azimuth = rng.uniform(0, 2 * np.pi, 2)
        self.zoom = float(rng.uniform(0.85, 1.3))
        self.scale = SUPERSAMPLING * size / _WIDTH * self.zoom  # fine pixels per ground unit
        self.rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        self.away = np.array([np.cos(azimuth), np.sin(azimuth)])  # where shadows point, in the picture
        self.shadow_length = float(rng.uniform(0.5, 1.3))  # per unit of height
        self.shadow = (
            self.rotation.T @ self.away * self.shadow_length
        )  # where a unit of height throws its shadow, on the ground
        self.reach = _WIDTH / self.zoom / np.sqrt(2)  # everything visible is nearer to the origin than this
        side = (SUPERSAMPLING * size,) * 2
        self.colour = Image.new("RGB", side)
        self.height = Image.new("L", side)
        self.grain = Image.new("L", side)
        self._pens = [ImageDraw.Draw(self.colour, "RGBA"), ImageDraw.Draw(self.height), ImageDraw.Draw(self.grain)]

    def fork(self) -> np.random.Generator:
        """A generator of its own for a texture, so that the layout does not depend on how many pixels it takes."""
        return np.random.Generator(np.random.PCG64(int(self.rng.integers(2**63))))

    def noise(self, coarsest: int = 4, decay: float = 0.3) -> Floats:
        """Fractal noise (size, size) in the picture's frame."""
        return fractal(self.fork(), self.size, coarsest, decay)

    def patches(self, coarsest: int = 4, decay: float = 0.3) -> Floats:
        """Fractal noise (64, 64) in the picture's frame that is exactly the same at every size.

        For decisions: a threshold on `noise` would fall differently at another size, and all that is drawn after it.
        """
        return fractal(self.fork(), 64, coarsest, decay)

    def grid(self) -> tuple[Floats, Floats]:
        """Ground coordinates x and y, each (size, size), of the picture's pixels."""
        axis = (np.arange(self.size, dtype=np.float32) + 0.5) * (_WIDTH / self.size) - _WIDTH / 2
        east, south = np.meshgrid(axis / np.float32(self.zoom), axis / np.float32(self.zoom))
        r = self.rotation.astype(np.float32)
        return r[0, 0] * east + r[1, 0] * south, r[0, 1] * east + r[1, 1] * south

    def pixels(self, points: Points) -> npt.NDArray[np.float64]:
        """Ground points (..., 2) in fine pixels."""
        turned: npt.NDArray[np.float64] = np.asarray(points, np.float64) @ self.rotation.T
        return turned * self.scale + self.colour.width / 2

    def lit(self, normal: tuple[float, float]) -> float:
        """How much a slope whose downhill direction is `normal` (ground frame) faces the sun, -1..1."""
        return float(-(self.rotation @ np.asarray(normal)) @ self.away)

    def sees(self, x: float, y: float, margin: float) -> bool:
        """Whether a ground point is in the picture or within `margin` units of it."""
        u, v = self.rotation @ (x, y)
        return bool(max(abs(u), abs(v)) < _WIDTH / 2 / self.zoom + margin)

    def ground(self, rgb: Floats, grain: float | Floats = 0.1) -> None:
        """Cover everything with an image (size, size, 3) of 0..255 and a roughness (relative, 0..1)."""
        side = self.colour.size
        fine = Image.fromarray(np.clip(rgb, 0, 255).astype(np.uint8)).resize(side, Image.Resampling.BILINEAR)
        self.colour.paste(fine)
        rough = np.broadcast_to(np.asarray(grain, np.float32) * 255, (self.size, self.size))
        self.grain.paste(Image.fromarray(rough.astype(np.uint8)).resize(side))
        self.height.paste(0, (0, 0, *side))

    def polygon(self, points: Points, colour: Colour, height: float | None = None, grain: float | None = None) -> None:
        """Fill a polygon (N, 2); its height (units) and roughness stay those below it where not given."""
        corners = [tuple(p) for p in self.pixels(points).tolist()]
        for pen, fill in zip(self._pens, _fills(colour, height, grain), strict=True):
            if fill is not None:
                pen.polygon(corners, fill=fill)

    def rect(
        self,
        box: tuple[float, float, float, float],
        colour: Colour,
        height: float | None = None,
        grain: float | None = None,
    ) -> None:
        """Fill the rectangle x0, y0, x1, y1."""
        x0, y0, x1, y1 = box
        self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], colour, height, grain)

    def disc(
        self, x: float, y: float, radius: float, colour: Colour, height: float | None = None, grain: float | None = None
    ) -> None:
        """Fill a circle."""
        (u, v), r = self.pixels((x, y)).tolist(), radius * self.scale
        for pen, fill in zip(self._pens, _fills(colour, height, grain), strict=True):
            if fill is not None:
                pen.ellipse((u - r, v - r, u + r, v + r), fill=fill)

    def path(
        self,
        points: Points,
        width: float,
        colour: Colour,
        height: float | None = None,
        grain: float | None = None,
    ) -> None:
        """Draw a polyline (N, 2) of the given width; lines thinner than a fine pixel fade instead."""
        corners = [tuple(p) for p in self.pixels(points).tolist()]
        pixels = width * self.scale
        fade = min(1.0, pixels)
        tinted = (*colour[:3], (colour[3] if len(colour) > 3 else 255) * fade)
        for pen, fill in zip(self._pens, _fills(tinted, height, grain), strict=True):
            if fill is not None:
                pen.line(corners, fill=fill, width=max(1, round(pixels)), joint="curve")

    def strokes(self, starts: Points, ends: Points, width: float, colour: Colour) -> None:
        """Draw many straight lines, from (N, 2) to (N, 2)."""
        for start, end in zip(np.asarray(starts), np.asarray(ends), strict=True):
            self.path((start, end), width, colour)

    def wire(self, start: Points, end: Points, width: float, colour: Colour, height: float) -> None:
        """A thin thing up in the air with the line of its shadow; the height layer would make it a wall."""
        ends = np.stack([np.asarray(start, np.float64), np.asarray(end, np.float64)])
        self.path(ends + self.shadow * height, width, (20, 24, 34, 110))
        self.path(ends, width, colour)

    def develop(self) -> npt.NDArray[np.uint8]:
        """The finished photograph (size, size, 3): shadows, texture, haze, lens blur and sensor noise."""
        tone = self.rng
        image = np.asarray(self.colour.reduce(SUPERSAMPLING), np.float32)
        shadow = np.asarray(self._shadows().reduce(SUPERSAMPLING), np.float32)[..., None] / 255
        sunlit = image * (1 - shadow * (1 - _AMBIENT) * np.float32(tone.uniform(0.8, 1)))
        grain = np.asarray(self.grain.reduce(SUPERSAMPLING), np.float32) / 255
        texture = 0.8 * self.noise(32, 0.1) + 0.35 * self.noise(8, 0.2)
        textured = sunlit * np.exp(grain * texture + 0.03 * self.noise(2, 0.6))[..., None]
        grey = textured.mean(2, keepdims=True)
        vivid = grey + (textured - grey) * np.float32(tone.uniform(0.6, 0.9))
        white_balance = tone.normal(1, 0.025, 3).astype(np.float32)
        haze, exposure = np.float32(tone.uniform(0, 0.1)), np.float32(tone.uniform(0.78, 1.1))
        airlight = haze * np.array([165, 175, 190], np.float32)
        seen = vivid * white_balance * exposure * (1 - haze) + airlight
        blur = float(tone.uniform(0.4, 0.65))
        image = np.asarray(gaussian_filter(seen, (blur, blur, 0), truncate=3), np.float32)
        image += np.float32(tone.uniform(0.6, 1.8)) * self.fork().standard_normal(image.shape, np.float32)
        return np.asarray(np.clip(image + 0.5, 0, 255), np.uint8)

    def _shadows(self) -> Image.Image:
        """Where something nearer to the sun stands higher than the line of sight to it, 0..255 per fine pixel.

        With horizon H_1(p) = max(h(p), h(p - d) - s), the doubling H_2n(p) = max(H_n(p), H_n(p - n d) - n s) looks
        2^k pixels towards the sun in k steps.
        """
        height = np.asarray(self.height).astype(np.int16)
        sink = HEIGHT_STEPS / (self.scale * self.shadow_length)  # grey levels that the shadow's edge falls per pixel
        horizon = height.copy()
        distance = 1
        while distance * sink < 255 and distance < len(height):
            du, dv = np.rint(self.away * distance).astype(int)
            source, target = _shifted(horizon.shape[0], int(du), int(dv))
            moved = horizon[source] - np.int16(round(distance * sink))
            horizon[target] = np.maximum(horizon[target], moved)
            distance *= 2
        depth = np.clip(horizon - height - 1, 0, 3)
        return Image.fromarray((depth * 85).astype(np.uint8))


def _fills(colour: Colour, height: float | None, grain: float | None) -> tuple[tuple[int, ...], int | None, int | None]:
    """What to draw on the colour, height and roughness layers; None leaves a layer alone."""
    return (
        tuple(int(min(255, max(0, c))) for c in colour),
        None if height is None else int(min(255, height * HEIGHT_STEPS)),
        None if grain is None else int(min(255, grain * 255)),
    )


def _shifted(side: int, du: int, dv: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Slices that read pixel (v - dv, u - du) into pixel (v, u), inside the picture."""

    def pair(d: int) -> tuple[slice, slice]:
        return slice(max(0, -d), side - max(0, d)), slice(max(0, d), side - max(0, -d))

    (from_u, to_u), (from_v, to_v) = pair(du), pair(dv)
    return (from_v, from_u), (to_v, to_u)
