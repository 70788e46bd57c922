"""Which episodes of a buffer to read.

Legend: N rows (transitions), E episodes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from orl_ldm.buffer.schema import Columns, Header, ImageRef
from orl_ldm.errors import UserError


@dataclass(frozen=True)
class Selection:
    """Filters that an episode has to pass, all of them; by default every episode does."""

    scenes: tuple[str, ...] = ()  # of the episode's image; none means any
    behaviors: tuple[str, ...] = ()  # ids of behaviour policies; none means any
    at_least: Mapping[str, float] | None = None  # raw reward term -> its least value, such as {"psnr": 25.0}
    at_most: Mapping[str, float] | None = None  # such as {"lpips": 0.3}
    reward_quantile: float = 0.0  # of the episodes that pass so far, only those whose reward is not below this quantile

    def __post_init__(self) -> None:
        if not 0 <= self.reward_quantile <= 1:
            raise UserError(f"Selection.reward_quantile is {self.reward_quantile}; give a number from 0 to 1")

    def takes_behavior(self, header: Header) -> bool:
        """Whether any episode of a shard under this header can pass."""
        return not self.behaviors or header.behavior_id in self.behaviors

    def episodes(
        self,
        header: Header,
        columns: Columns,
        images: Mapping[int, ImageRef],
        bounds: npt.NDArray[np.int64],
        among: npt.NDArray[np.bool_],
    ) -> npt.NDArray[np.bool_]:
        """(E,) those `among` the episodes, of `bounds` (E, 2), that pass by scene, terms and reward.

        Raises UserError for a term that is not logged.
        """
        starts, stops = bounds.T  # (E,), (E,)
        passed = among.copy()
        if self.scenes:
            of_scene = [number for number, image in images.items() if image.scene in self.scenes]
            passed &= np.isin(columns["image_id"][starts], of_scene)
        for wanted, compare in ((self.at_least, np.greater_equal), (self.at_most, np.less_equal)):
            for term, bound in (wanted or {}).items():
                if term not in header.term_names:
                    raise UserError(
                        f"the buffer logs no term {term!r} to select by; choose of {', '.join(header.term_names)}"
                    )
                passed &= compare(columns["values"][stops - 1, header.term_names.index(term)], bound)
        if self.reward_quantile and passed.any():
            reward = np.add.reduceat(columns["rewards"], starts, dtype=np.float64)  # (E,)
            passed &= reward >= np.quantile(reward[passed], self.reward_quantile)
        return passed
