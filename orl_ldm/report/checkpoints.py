"""Checkpoints of a training: the offline estimates of each, beside its true replay on held-out images."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from orl_ldm.errors import UserError
from orl_ldm.report.cells import Cell, Row, Table
from orl_ldm.report.style import MARKERS, WIDTH, Theme, save

#: Column of an estimate -> its label.
LABELS = {"fqe": "FQE, the judge", "wis": "WIS"}


def read(folder: Path) -> tuple[pd.DataFrame, dict[str, Any]] | None:
    """(ope.csv, ope.json) of an off-policy evaluation; None where none was made, or nothing was replayed."""
    if not (folder / "ope.csv").is_file():
        return None
    try:
        frame = pd.read_csv(folder / "ope.csv")
        facts = json.loads((folder / "ope.json").read_text(encoding="utf-8"))
        needed = {"checkpoint", "replay", *LABELS}
        return (frame, facts) if needed <= set(frame.columns) and isinstance(facts["spearman"], dict) else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / 'ope.csv'} cannot be read ({error}); run orl-ldm ope again") from error


def table(frame: pd.DataFrame) -> Table:
    """A row for each checkpoint: its estimates and, where there is one, its replay, with intervals."""
    columns = {name: label for name, label in {**LABELS, "replay": "replay"}.items() if name in frame.columns}
    rows = []
    for _, line in frame.iterrows():
        cells = [Cell(str(line["checkpoint"]))]
        for name in columns:
            interval = f"[{line[f'{name}_low']:.4f}, {line[f'{name}_high']:.4f}]"
            cells.append(Cell(f"{line[name]:.4f}", detail=interval))
        rows.append(Row((*cells, Cell(f"{line['wis_effective_episodes']:.1f}"))))
    return Table(("checkpoint", *columns.values(), "episodes WIS rests on"), tuple(rows))


def scatter(frame: pd.DataFrame, facts: dict[str, Any], theme: Theme) -> Figure:
    """Each estimate against the replayed reward; on the line they agree."""
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    axes = figure.subplots()
    ends = [frame["replay"].min(), frame["replay"].max()]
    axes.plot(ends, ends, color=theme.muted, linewidth=0.8, zorder=1)
    for (name, label), color, marker in zip(LABELS.items(), theme.cycle, MARKERS, strict=False):
        text = f"{label}: Spearman {facts['spearman'][name]:.2f}"
        axes.scatter(frame["replay"], frame[name], 22, color, marker=marker, label=text, zorder=2)
    axes.set(xlabel="reward replayed with the LDM", ylabel="reward estimated offline")
    figure.legend(loc="outside lower center", fontsize=8)
    return figure


def draw(folder: Path) -> None:
    """Save the scatter in a folder of `orl-ldm ope` that holds a replay."""
    found = read(folder)
    if found is not None:
        save(folder, "ope", lambda theme: scatter(*found, theme))
