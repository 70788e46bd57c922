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

    def takes_behavior(self, header: Header) -> bool:
        """Whether any episode of a shard under this header can pass."""
        return not self.behaviors or header.behavior_id in self.behaviors

    def episodes(
        self, header: Header, columns: Columns, images: Mapping[int, ImageRef], ends: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.bool_]:
        """(E,) whether each episode passes by scene and terms; `ends` (E,) are the episodes' last rows.

        Raises UserError for a term that is not logged.
        """
        passed = np.ones(len(ends), dtype=np.bool_)
        if self.scenes:
            of_scene = [number for number, image in images.items() if image.scene in self.scenes]
            passed &= np.isin(columns["image_id"][ends], of_scene)
        for wanted, compare in ((self.at_least, np.greater_equal), (self.at_most, np.less_equal)):
            for term, bound in (wanted or {}).items():
                if term not in header.term_names:
                    raise UserError(
                        f"the buffer logs no term {term!r} to select by; choose of {', '.join(header.term_names)}"
                    )
                passed &= compare(columns["terms"][ends, header.term_names.index(term)], bound)
        return passed
