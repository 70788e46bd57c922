"""The metrics of a run as `metrics.csv` and TensorBoard events, one row per epoch however often it is resumed."""

import csv
import shutil
from pathlib import Path
from types import TracebackType

from torch.utils.tensorboard import SummaryWriter

from orl_ldm.learn.learner import Metrics


class MetricsWriter:
    """Appends after `done` epochs; rows that were written after the checkpoint of that epoch are dropped first."""

    def __init__(self, folder: Path, done: int) -> None:
        self._csv = folder / "metrics.csv"
        events = folder / "tensorboard"
        if done == 0:
            self._csv.unlink(missing_ok=True)
            shutil.rmtree(events, ignore_errors=True)
        elif self._csv.exists():
            _keep(self._csv, done)
        self._writer = SummaryWriter(str(events), purge_step=done + 1 if done else None)

    def write(self, epoch: int, metrics: Metrics) -> None:
        """Add the row of one epoch, counted from 1."""
        row: dict[str, int | float] = {"epoch": epoch, **metrics}
        new = not self._csv.exists()
        with self._csv.open("a", newline="") as file:
            writer = csv.DictWriter(file, row)
            if new:
                writer.writeheader()
            writer.writerow({name: value if name == "epoch" else f"{value:.8g}" for name, value in row.items()})
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, epoch)

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._writer.close()


def _keep(path: Path, epochs: int) -> None:
    """Cut a CSV after the row of epoch `epochs`."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)[: epochs + 1]
    staged = path.with_suffix(".csv.tmp")
    staged.write_text("".join(lines))
    staged.replace(path)
