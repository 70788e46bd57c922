"""What was done with a file."""

from dataclasses import asdict, dataclass
from typing import Any

from orl_ldm.upscale.check import Quality
from orl_ldm.upscale.options import readable


@dataclass(frozen=True)
class Report:
    """What was done with a file, or would be (`dry_run`)."""

    source: str
    target: str
    width: int
    height: int
    tiles: int
    empty_tiles: int
    calls: int  # denoiser calls of each tile
    pieces_found: int  # that an earlier run had finished
    seconds: float
    megapixels: float
    disk: int  # bytes: of the file, or those that may be needed
    quality: Quality
    notes: tuple[str, ...]
    dry_run: bool = False

    def line(self) -> str:
        """One sentence for people."""
        size = f"{self.target}: {self.width}x{self.height} pixels, {self.tiles} tiles"
        if self.dry_run:
            return f"{size}, about {self.seconds:.0f} s, up to {readable(self.disk)} of disk"
        parts = [size + (f" ({self.empty_tiles} more are empty)" if self.empty_tiles else "")]
        if self.calls:
            parts.append(f"{self.calls} calls per tile")
        parts.append(f"{self.seconds:.1f} s, {self.seconds / max(self.megapixels, 1e-9):.2f} s per output megapixel")
        parts += [line] if (line := self.quality.line()) else []
        return "; ".join(parts)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)
