"""Procedural aerial scenes: pictures of eight kinds of place, for runs that have no data set.

Every picture follows from (scene, seed, index) alone. A scene covers the same ground at every size.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from orl_ldm.errors import UserError
from orl_ldm.images.synthetic.canvas import Canvas
from orl_ldm.images.synthetic.industry import industrial_area
from orl_ldm.images.synthetic.land import desert, forest
from orl_ldm.images.synthetic.railway import railway_station
from orl_ldm.images.synthetic.river import river
from orl_ldm.images.synthetic.runway import runway
from orl_ldm.images.synthetic.town import commercial_area, dense_residential

__all__ = ["SCENES", "render"]

_PAINTERS: Final[dict[str, Callable[[Canvas], None]]] = {  # the order numbers the scenes: append, never reorder
    "commercial_area": commercial_area,
    "dense_residential": dense_residential,
    "desert": desert,
    "forest": forest,
    "industrial_area": industrial_area,
    "railway_station": railway_station,
    "river": river,
    "runway": runway,
}
SCENES: Final[tuple[str, ...]] = tuple(_PAINTERS)
_MIN_SIZE = 16


def render(scene: str, seed: int, index: int, size: int = 256) -> npt.NDArray[np.uint8]:
    """Picture number `index` of a scene, (size, size, 3) RGB uint8."""
    if scene not in _PAINTERS:
        raise UserError(f"there is no synthetic scene {scene!r}: choose one of {', '.join(SCENES)}")
    if size < _MIN_SIZE:
        raise UserError(f"a synthetic scene of size {size} is too small: ask for {_MIN_SIZE} pixels or more")
    if seed < 0 or index < 0:
        raise UserError(f"seed and index of a synthetic scene count from 0, not seed {seed} and index {index}")
    entropy = np.random.SeedSequence([seed, index, SCENES.index(scene)])
    canvas = Canvas(np.random.Generator(np.random.PCG64(entropy)), size)
    _PAINTERS[scene](canvas)
    return canvas.develop()
