"""How figures look: a theme for light pages and paper, a theme for dark pages, and colors for most eyes.

Colors are those of Okabe and Ito (2008). Markers differ too, so that figures can be read without color.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from orl_ldm.files import write_bytes
from orl_ldm.report.fonts import FONT, use_fonts

WIDTH = 5.4  # inches; narrow, so that 9 pt text is still legible where a phone shrinks the figure to its screen
DPI = 180

Box = tuple[float, float, float, float]  # left, bottom, right, top

#: Where a label may stand, (right, up) of its point, in order of preference.
SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


@dataclass(frozen=True)
class Theme:
    """Colors of a figure: its paper, its text and lines, and a cycle for scenes."""

    name: str
    paper: str
    ink: str
    muted: str
    grid: str
    accent: str  # the steered policy
    rival: str  # the best fixed schedule
    cycle: tuple[str, ...]

    def settings(self) -> dict[str, object]:
        """matplotlib's settings. Names come from outside, so nothing is read as mathematics."""
        return {
            "text.parse_math": False,
            "font.family": FONT,
            "font.size": 9.0,
            "axes.titlesize": 10.0,
            "axes.titlelocation": "left",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.linewidth": 0.6,
            "legend.frameon": False,
            "lines.linewidth": 1.6,
            "figure.facecolor": self.paper,
            "axes.facecolor": self.paper,
            "savefig.facecolor": self.paper,
            "text.color": self.ink,
            "axes.labelcolor": self.ink,
            "axes.edgecolor": self.muted,
            "xtick.color": self.muted,
            "ytick.color": self.muted,
            "grid.color": self.grid,
        }


LIGHT = Theme(
    "light", "#ffffff", "#1b2430", "#5a6675", "#e4e8ee", "#d55e00", "#0072b2",
    ("#0072b2", "#d55e00", "#009e73", "#a5548c", "#b8860b", "#2f9fd8", "#1b2430", "#7d8794"),
)  # fmt: skip
DARK = Theme(
    "dark", "#161b22", "#e8ecf1", "#a3adba", "#2b333e", "#ff8b3d", "#56b4e9",
    ("#56b4e9", "#ff8b3d", "#2fcf9f", "#e59ac8", "#f0c64a", "#8fd3ff", "#e8ecf1", "#8b96a5"),
)  # fmt: skip


@dataclass(frozen=True)
class Drawing:
    """A figure on disk for light and for dark pages, and what it shows in words (the image's alternative text)."""

    light: Path
    dark: Path
    alt: str


def save(folder: Path, name: str, draw: Callable[[Theme], Figure], theme: Theme = LIGHT) -> Path:
    """Draw under a theme and save it in `folder` as `<name>.png`, or `<name>-dark.png`."""
    path = folder / f"{name}{'-dark' if theme is DARK else ''}.png"
    content = BytesIO()
    with matplotlib.rc_context(theme.settings()), warnings.catch_warnings():  # type: ignore[arg-type]
        warnings.filterwarnings("ignore", "Glyph .* missing")  # mended by use_fonts
        figure = draw(theme)
        use_fonts(figure)
        figure.savefig(content, format="png", dpi=DPI)
    write_bytes(path, content.getvalue())
    return path


def save_both(folder: Path, name: str, draw: Callable[[Theme], Figure], alt: str) -> Drawing:
    """The figure for light and for dark pages."""
    return Drawing(save(folder, name, draw, LIGHT), save(folder, name, draw, DARK), alt)


@dataclass(frozen=True)
class Label:
    """A text to write beside a point: where the point is (data units), how large (radius in pt), which color."""

    text: str
    point: tuple[float, float]
    radius: float
    color: str


def spread_labels(axes: Axes, labels: list[Label]) -> None:
    """Write each text beside its point where it covers no point and no earlier text; a thin line joins far ones.

    Greedy: earlier texts choose first. The axes' limits must be final.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # lays the axes out, so that points have places on paper
    unit = figure.dpi / 72  # display pixels per pt
    centres = [tuple(axes.transData.transform(label.point)) for label in labels]
    reach = [(label.radius + 1.5) * unit for label in labels]
    taken = [(x - r, y - r, x + r, y + r) for (x, y), r in zip(centres, reach, strict=True)]
    frame = axes.get_window_extent().extents
    for (x, y), label in zip(centres, labels, strict=True):
        style: dict[str, Any] = {"textcoords": "offset points", "fontsize": 8, "color": label.color}
        artist = axes.annotate(label.text, label.point, (0, 0), **style)
        width, height = artist.get_window_extent().size
        best, cost_of_best, line = (0.0, 0.0), float("inf"), False
        for gap, (right, up) in product((3, 8, 14, 22, 32), SIDES):
            away = (label.radius + gap) * unit
            left, bottom = x + right * away + (right - 1) / 2 * width, y + up * away + (up - 1) / 2 * height
            box = (left, bottom, left + width, bottom + height)
            cost = sum(_overlap(box, other) for other in taken) + _outside(box, frame)
            if cost < cost_of_best - 1e-6:
                best, cost_of_best, line = (left, bottom), cost, gap > 8
        artist.remove()
        arrow = {"arrowstyle": "-", "color": label.color, "lw": 0.6, "shrinkB": label.radius} if line else None
        offset = ((best[0] - x) / unit, (best[1] - y) / unit)
        axes.annotate(label.text, label.point, offset, arrowprops=arrow, **style)
        margin = 2 * unit
        taken.append((best[0] - margin, best[1], best[0] + width + margin, best[1] + height))


def _overlap(a: Box, b: Box) -> float:
    """Area that two boxes (left, bottom, right, top) share."""
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _outside(box: Box, frame: Box) -> float:
    """Area of a box that sticks out of a frame, counted double: text cut off is worse than text overlapped."""
    return 2 * ((box[2] - box[0]) * (box[3] - box[1]) - _overlap(box, frame))
