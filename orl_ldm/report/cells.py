"""A table for a page, a Markdown file and a terminal."""

import re
from dataclasses import dataclass

import rich.box
import rich.table
from rich.text import Text

from orl_ldm.terminal import printable

#: Signs of marks, for readers who see no color. Gains and losses are differences whose interval excludes zero.
SIGNS = {"gain": " \N{CHECK MARK}", "loss": " \N{BALLOT X}"}
STYLES = {"best": "bold", "gain": "green", "loss": "red"}


@dataclass(frozen=True)
class Cell:
    """Plain text, a mark ("", "best", "gain" or "loss"), and a detail that a page shows below in smaller type."""

    text: str
    mark: str = ""
    detail: str = ""

    @property
    def signed(self) -> str:
        """The text with the sign of its mark."""
        return self.text + SIGNS.get(self.mark, "")

    @property
    def whole(self) -> str:
        """Everything on one line."""
        return f"{self.signed} {self.detail}".rstrip()


@dataclass(frozen=True)
class Row:
    """One row; a `strong` one is highlighted (the steered policy, the mean over all scenes)."""

    cells: tuple[Cell, ...]
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """A header and rows of the same length; the first column is text, the others are numbers."""

    header: tuple[str, ...]
    rows: tuple[Row, ...]

    def markdown(self) -> str:
        """A pipe table; best values in bold."""
        lines = [[escaped(title) for title in self.header], ["---"] + ["---:"] * (len(self.header) - 1)]
        for row in self.rows:
            texts = [escaped(cell.whole) for cell in row.cells]
            lines.append([f"**{t}**" if cell.mark == "best" else t for t, cell in zip(texts, row.cells, strict=True)])
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)

    def rich(self, title: str, columns: int) -> rich.table.Table:
        """The first `columns` columns for a terminal. Names are never parsed as markup, numbers never broken."""
        table = rich.table.Table(title=Text(printable(title)), title_justify="left", box=rich.box.SIMPLE_HEAD)
        for index, name in enumerate(self.header[:columns]):
            table.add_column(
                Text("\n".join(printable(name).split(" "))), justify="right" if index else "left", no_wrap=index > 0
            )
        for row in self.rows:
            cells = (Text(printable(cell.whole), style=STYLES.get(cell.mark, "")) for cell in row.cells[:columns])
            table.add_row(*cells, style="bold" if row.strong else "")
        return table


def escaped(text: str) -> str:
    """Text on one line, without a meaning in Markdown or HTML."""
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", " ".join(text.split()))
