"""What a run leaves to look at: loss curve, validation table and previews."""

import csv
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from accelerate import Accelerator
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import Tensor

from orl_ldm.files import write_bytes, write_text, writing
from orl_ldm.images.resample import to_pixels

if TYPE_CHECKING:
    from orl_ldm.pretrain.loop import Objective

SHOWN = 6  # validations that fit beside each other on a terminal


@dataclass(frozen=True)
class Run:
    """Where a run happens and what its stages share."""

    folder: Path
    accelerator: Accelerator
    seed: int
    workers: int
    previews: int
    degradation: str

    def validate(
        self, name: str, objective: "Objective", hr: Tensor, step: int, hours: float, loss: float, console: Console
    ) -> None:
        """Score the network on held-out images: a row in the table, which is printed, and a picture."""
        validation = objective.validate(hr)
        log = self.folder / f"{name}-validation.csv"
        append(log, {"step": step, "hours": hours, "loss": loss, **validation.scores})
        console.print(validation_table(name, log))
        pictures = {title: images[: self.previews] for title, images in validation.pictures.items()}
        save_previews(pictures, self.folder / "previews" / f"{name}-{step:07d}.png")


def append(path: Path, row: dict[str, float]) -> None:
    """Add a row to a CSV file, and the head before the first one."""
    new = not path.exists()
    with writing(path), path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row))
        if new:
            writer.writeheader()
        writer.writerow({key: str(value) if isinstance(value, int) else f"{value:.6g}" for key, value in row.items()})


def keep_until(path: Path, step: int) -> None:
    """Drop the rows after `step`: they are about to be written again; and what a kill left half written."""
    if not path.exists():
        return
    whole = [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
    if not whole:
        path.unlink()
        return
    head, *rows = whole
    write_text(path, head + "".join(row for row in rows if int(row.split(",")[0]) <= step))


def validation_table(name: str, log: Path) -> Table:
    """The last validations, one a column."""
    with log.open(newline="", encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    table = Table(title=f"{name}, held-out images", title_justify="left")
    shown = rows[-SHOWN:]
    for title in (head[0], *(row[0] for row in shown)):
        table.add_column(title, justify="right", no_wrap=True)
    for measure, *values in list(zip(head, *shown, strict=True))[1:]:
        table.add_row(measure.replace("_", " "), *(f"{float(value):.4g}" for value in values))
    return table


def save_previews(pictures: dict[str, Tensor], path: Path) -> None:
    """Save images (N, 3, H, W) in [0, 1] as a picture: a column for each title, a row for each image."""
    rows = len(next(iter(pictures.values())))
    figure = Figure(figsize=(2.7 * len(pictures), 2.7 * rows + 0.3), dpi=100, layout="constrained")
    axes = figure.subplots(rows, len(pictures), squeeze=False)
    for column, (title, images) in enumerate(pictures.items()):
        axes[0, column].set_title(title)
        for axis, image in zip(axes[:, column], images, strict=True):
            axis.imshow(to_pixels(image), interpolation="nearest")
            axis.axis("off")
    content = BytesIO()
    figure.savefig(content, format="png")
    write_bytes(path, content.getvalue())
