"""Open land: desert and forest."""

import numpy as np

from orl_ldm.images.synthetic.canvas import Canvas
from orl_ldm.images.synthetic.layout import jittered_grid, pick, sample, scattered
from orl_ldm.images.synthetic.noise import Floats, mix, resized, smoothstep
from orl_ldm.images.synthetic.trees import BROADLEAF, CONIFER, plant

_SANDS = ((214, 178, 132), (206, 160, 118), (222, 200, 158), (196, 150, 112), (205, 185, 150), (186, 160, 130))
_ROCKS = ((132, 116, 98), (150, 122, 98), (112, 106, 98))


def desert(canvas: Canvas) -> None:
    """Dunes with a lit and a shaded side over gravel plains, dry channels, tracks, rocks and a few shrubs."""
    rng = canvas.rng
    sand, rock = pick(rng, _SANDS), pick(rng, _ROCKS)
    x, y = canvas.grid()
    # A wind not too far from the sun's azimuth: dunes lit along their crests do not show.
    wind = float(np.arctan2(*canvas.shadow[::-1]) + rng.uniform(-0.9, 0.9) + rng.choice([0, np.pi]))
    downwind = np.float32(np.cos(wind)) * x + np.float32(np.sin(wind)) * y
    warp, drift = canvas.noise(3, 1.2), canvas.noise(4, 0.8)
    sandy = smoothstep(-0.7, 0.5, canvas.noise(2, 0.9) + np.float32(rng.uniform(-0.5, 1.6)))  # where sand covers rock
    relief = canvas.noise(4, 1.1) * np.float32(rng.uniform(1, 4)) + (1 - sandy) * canvas.noise(16, 0.5) * 0.4
    large = rng.uniform(0, 1)
    for wavelength, share in ((rng.uniform(28, 70), large), (rng.uniform(6.5, 12), 1 - 0.7 * large)):
        phase = (downwind + (0.2 * np.float32(wavelength) + 4) * (warp + 0.5 * canvas.noise(6, 1.0))) / wavelength
        cycle = phase - np.floor(phase)
        crest = np.minimum(cycle / 0.7, (1 - cycle) / 0.3).astype(np.float32)  # dunes climb slowly and fall off sharply
        strength = np.clip(0.6 + 0.6 * canvas.noise(4, 1.3), 0, 1.4) * sandy * np.float32(share)
        relief += smoothstep(0, 1, crest) * np.float32(wavelength * 0.11) * strength
    light = np.clip(1 + 0.55 * _sunlit(canvas, relief), 0.5, 1.3)
    ground = mix(mix(rock, sand, 0.3 + 0.7 * sandy), np.multiply(sand, 1.1), smoothstep(0, 2, drift) * 0.5)
    channel = np.abs(y + 40 * warp + np.float32(rng.uniform(-90, 90)))
    wadi = smoothstep(9, 4, channel + 4 * drift) * np.float32(rng.random() < 0.4)
    ground = mix(ground * light[..., None], np.multiply(sand, 1.1), 0.75 * wadi)
    canvas.ground(ground, 0.03 + 0.1 * (1 - sandy))
    if rng.random() < 0.5:
        _track(canvas, tuple(c * 0.88 for c in sand))
    count = int(rng.integers(10, 160))
    places = scattered(canvas, count, 36)
    plant(canvas, places, rng.uniform(0.6, 2.2, len(places)), ((92, 92, 66), (110, 104, 78), (78, 80, 60)))
    for _ in range(int(rng.integers(0, 60))):
        cx, cy = rng.uniform(-canvas.reach, canvas.reach, 2)
        angles = np.sort(rng.uniform(0, 2 * np.pi, 6))
        corners = np.stack([np.cos(angles), np.sin(angles)], 1) * rng.uniform(0.5, 2.6) + [cx, cy]
        canvas.polygon(corners, pick(rng, _ROCKS, 0.15), 1.2, 0.2)


def forest(canvas: Canvas) -> None:
    """Crowns shoulder to shoulder, of mixed species and sizes, with clearings and sometimes a path."""
    rng = canvas.rng
    floor, dry = pick(rng, ((46, 50, 34), (66, 58, 42), (52, 54, 40))), (118, 104, 80)
    bare = canvas.patches(4, 0.4)
    litter = resized(bare, canvas.size) + 0.3 * canvas.noise(32, 0.1)
    canvas.ground(mix(floor, dry, smoothstep(0.6, 2.2, litter) * 0.8), 0.3)
    centre = _track(canvas, (136, 122, 98)) if rng.random() < 0.4 else None
    radius = float(rng.choice([3.8, 5.2, 7.5]) * rng.uniform(0.9, 1.1))
    step = radius * float(rng.uniform(1.15, 1.45))
    places = jittered_grid(canvas, step)
    open_ground = sample(canvas, bare, places) + rng.normal(0, 0.15, len(places)) > rng.uniform(1.3, 2.6)
    keep = ~open_ground
    if centre is not None:
        keep &= np.abs(places[:, 1] - np.interp(places[:, 0], centre[:, 0], centre[:, 1])) > radius * 0.7 + 2
    places = places[keep]
    species = sample(canvas, canvas.patches(4, 0.2), places) + rng.normal(0, 0.4, len(places))
    conifers = species > rng.choice([-3.0, 0.4, 3.0])
    autumn = (pick(rng, ((112, 100, 62), (104, 84, 62))),) if rng.random() < 0.3 else ()
    for group, colours, conifer in ((~conifers, BROADLEAF + autumn, False), (conifers, CONIFER, True)):
        sizes = radius * np.clip(rng.lognormal(0, 0.32, int(group.sum())), 0.45, 1.9) * (0.85 if conifer else 1)
        if len(sizes):
            plant(canvas, places[group], sizes, colours, conifer, tallness=1.8)


def _sunlit(canvas: Canvas, relief: Floats) -> Floats:
    """How steeply a relief (size, size) of ground units rises away from the sun, 1 being 45 degrees."""
    down, right = np.gradient(relief, 256 / canvas.size / canvas.zoom)
    return np.asarray(right * canvas.away[0] + down * canvas.away[1], np.float32)


def _track(canvas: Canvas, colour: tuple[float, ...]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Two wheel ruts along a winding line, which is returned as points (N, 2) in order of x."""
    rng = canvas.rng
    x = np.linspace(-canvas.reach, canvas.reach, 60)
    wave = rng.uniform(5, 25) * np.sin(x / rng.uniform(30, 70) + rng.uniform(0, 6))
    line = np.stack([x, rng.uniform(-70, 70) + wave], 1)
    canvas.path(line, 4.2, (*colour, 130))
    for side in (-1.1, 1.1):
        canvas.path(line + np.array([0, side]), 0.8, tuple(c * 0.85 for c in colour))
    return line
