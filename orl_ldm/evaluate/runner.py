"""Score methods batch by batch, keep every batch's results to resume from, and lay them out as tables."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from orl_ldm.actions import ACTIONS
from orl_ldm.config import digest
from orl_ldm.diffusion.ldm import LDM
from orl_ldm.evaluate import methods as m
from orl_ldm.files import write_bytes
from orl_ldm.images.config import DataConfig
from orl_ldm.images.pairs import Batch, load_pairs
from orl_ldm.images.sources import ImageRef
from orl_ldm.metrics import CONTRACT, METRICS, Metrics, episode_terms
from orl_ldm.reward import SETTINGS, TERMS, Weights, compose

Advance = Callable[[str, int, int], None]

#: Of the results that are kept: raised when the same settings come to give other numbers, so that no old ones are read.
VERSION = 2


@dataclass(frozen=True)
class Scores:
    """One method on all images, in their order."""

    quality: npt.NDArray[np.float32]  # (N, M) in the order of METRICS
    nfe: npt.NDArray[np.int64]  # (N,)
    seconds: npt.NDArray[np.float64]  # (N,)
    pixels: npt.NDArray[np.uint8]  # (N, H, W, 3)
    decisions: npt.NDArray[np.float32]  # (M, 8), slot counted over all images; empty for methods without any


class Runner:
    """Scores methods batch by batch; a batch that was scored before is read back."""

    def __init__(
        self,
        folder: Path,
        refs: Sequence[ImageRef],
        data: DataConfig,
        ldm: LDM,
        metrics: Metrics,
        batch_size: int,
        advance: Advance,
    ) -> None:
        self.folder, self.refs, self.data, self.ldm = folder, refs, data, ldm
        self.metrics, self.batch_size, self.advance = metrics, batch_size, advance

    def score(self, method: m.Method) -> Scores:
        """The method on all images."""
        parts = []
        for start in range(0, len(self.refs), self.batch_size):
            parts.append(self._part(method, start))
            self.advance(method.name, min(start + self.batch_size, len(self.refs)), len(self.refs))
        for number, part in enumerate(parts):
            part["decisions"][:, 0] += number * self.batch_size
        return Scores(**{name: np.concatenate([part[name] for part in parts]) for name in parts[0]})

    def _part(self, method: m.Method, start: int) -> dict[str, npt.NDArray[Any]]:
        refs = self.refs[start : start + self.batch_size]
        names, ldm = [ref.name for ref in refs], (self.ldm.digest, str(self.ldm.dtype))
        key = digest(VERSION, method.key, ldm, asdict(self.data), names, CONTRACT, list(METRICS))
        path = self.folder / f"{key[:24]}.npz"
        if path.exists():
            with np.load(path, allow_pickle=False) as kept:
                return {name: kept[name] for name in kept.files}
        batch = load_pairs(refs, self.data)
        outcome, seconds = self._after(method.base, start, batch) if method.base else m.timed(method, batch)
        part = self._measure(outcome, batch, seconds)
        content = BytesIO()
        np.savez_compressed(content, allow_pickle=False, **part)
        write_bytes(path, content.getvalue())
        return part

    def _after(self, base: m.Method, start: int, batch: Batch) -> tuple[m.Outcome, float]:
        """`base`, which is scored first and kept, projected; its seconds are the base's."""
        kept = self._part(base, start)
        images = torch.from_numpy(kept["pixels"]).permute(0, 3, 1, 2).float() / 255
        return m.Outcome(m.projected(images, batch), kept["nfe"]), float(kept["seconds"][0])

    def _measure(self, outcome: m.Outcome, batch: Batch, seconds: float) -> dict[str, npt.NDArray[Any]]:
        images = outcome.images.to(self.ldm.device)
        quality = self.metrics(images, batch.hr.to(self.ldm.device)).cpu().numpy()
        none = np.zeros((0, 3 + len(ACTIONS)), dtype=np.float32)
        return {
            "quality": quality,
            "nfe": outcome.nfe,
            "seconds": np.full(len(batch.refs), seconds),
            "pixels": (images * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy(),
            "decisions": none if outcome.decisions is None else outcome.decisions,
        }


def per_image(
    scores: Mapping[tuple[str, str], Scores], refs: Sequence[ImageRef], weights: Weights, nfe_max: int
) -> pd.DataFrame:
    """One row per (method, input kind, image), of scores by (method, input kind)."""
    frames = []
    for (name, kind), score in scores.items():
        terms = episode_terms(torch.from_numpy(score.quality), score.nfe, score.seconds)
        frame = pd.DataFrame(terms, columns=list(TERMS))
        facts = {"method": name, "input": kind, "image": [r.name for r in refs], "scene": [r.scene for r in refs]}
        for place, (column, value) in enumerate(facts.items()):
            frame.insert(place, column, value)
        frame["reward"] = compose(terms, weights, nfe_max)
        for setting, others in SETTINGS.items():
            frame[f"reward_{setting}"] = compose(terms, others, nfe_max)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def decisions(score: Scores, refs: Sequence[ImageRef]) -> pd.DataFrame:
    """The steered policy's decisions, one row each."""
    rows: Iterator[dict[str, Any]] = (
        {"image": refs[int(row[0])].name, "scene": refs[int(row[0])].scene, "decision": int(row[1]), "t": row[2]}
        | dict(zip(ACTIONS, row[3:], strict=True))
        for row in score.decisions
    )
    return pd.DataFrame(list(rows))
