"""Cut an image into overlapping tiles, so that what is computed of it needs little memory, whatever its size."""

from collections.abc import Iterator
from dataclasses import dataclass

SIDE = 640  # pixels: the largest side of a tile with its context


@dataclass(frozen=True)
class Span:
    """The pixels `first` to `last` (exclusive) of one axis of an image, and those that they depend on."""

    first: int
    last: int
    low: int  # with its context: from `low`
    high: int  # to `high` (exclusive)
    ends: bool  # at the image's border

    @property
    def read(self) -> slice:
        """The span with its context, within the image."""
        return slice(self.low, self.high)

    def own(self, stride: int = 1) -> slice:
        """The span itself, within a map of the span with its context that has a value every `stride` pixels."""
        return slice((self.first - self.low) // stride, None if self.ends else (self.last - self.low) // stride)


def spans(length: int, context: int, step: int = 1) -> Iterator[Span]:
    """Spans that cover an axis once, each of whose pixels sees `context` more on both sides, up to the borders.

    Where they begin is a multiple of `step`, which divides `context`. Up to `SIDE` pixels are one span.
    """
    own = length if length <= SIDE else (SIDE - 2 * context) // step * step
    for first in range(0, length, own):
        last = min(first + own, length)
        yield Span(first, last, max(first - context, 0), min(last + context, length), last == length)
