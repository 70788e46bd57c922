"""The report's figures: the frontier of methods, the policy's decisions, training curves, and crops side by side."""

import textwrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import image as pixels
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from orl_ldm.actions import ACTIONS, STOPS
from orl_ldm.report.inputs import Evaluation, Example
from orl_ldm.report.statistics import summarise, text
from orl_ldm.report.style import MARKERS, WIDTH, Label, Theme, spread_labels
from orl_ldm.reward import TERMS

ESTIMATE = "offline/estimated_reward"


def frontier(evaluation: Evaluation, theme: Theme) -> Figure:
    """PSNR against LPIPS, a numbered point per method; a dashed line joins those that none beats in both.

    Areas grow with NFE. The autoencoder's ceiling lies far off and is named in the corner. A second line joins the best
    points of a policy that was evaluated under several preferences.
    """
    means = summarise(evaluation.per_image, by_scene=False)
    ceiling = means["method"] == evaluation.roles.get("ceiling")
    ranked = means[~ceiling]
    steered = str(evaluation.roles.get("steered"))
    preferences = ranked[ranked["method"].str.startswith(f"{steered}, prefer")]
    colors = {steered: theme.accent, evaluation.roles.get("fixed"): theme.rival}
    colors |= dict.fromkeys(preferences["method"], theme.accent)
    figure = Figure(figsize=(WIDTH, 3.9 + 0.17 * len(ranked)), layout="constrained")
    axes = figure.subplots()
    labels = []
    for number, (_, mean) in enumerate(ranked.iterrows(), 1):
        color = colors.get(mean["method"], theme.ink)
        area, key = 26 + 1.5 * mean["nfe"], f"{number}  {mean['method']} · {mean['nfe']:.3g} NFE"
        axes.scatter(mean["lpips"], mean["psnr"], area, color, alpha=0.8, linewidths=0, label=key, zorder=3)
        labels.append(Label(str(number), (mean["lpips"], mean["psnr"]), area**0.5 / 2, color))
    front = _front(ranked)
    axes.plot(front["lpips"], front["psnr"], "--", color=theme.muted, linewidth=1, zorder=2)
    front = _front(preferences)
    axes.plot(front["lpips"], front["psnr"], color=theme.accent, linewidth=1.6, zorder=2)
    axes.set(xlabel="LPIPS (lower is better)", ylabel="PSNR (dB, higher is better)")
    axes.margins(x=0.1, y=0.14)
    corner = "↖ better" + "".join(
        f"; {best['method']}: {best['psnr']:.2f} dB at {best['lpips']:.3f}" for _, best in means[ceiling].iterrows()
    )
    axes.annotate(corner, (0.01, 0.99), xycoords="axes fraction", va="top", color=theme.muted, fontsize=8)
    legend = figure.legend(loc="outside lower center", fontsize=8, handletextpad=0.2, labelspacing=0.3)
    for entry, label in zip(legend.get_texts(), labels, strict=True):
        entry.set_color(label.color)
    for handle in legend.legend_handles:
        if isinstance(handle, PathCollection):
            handle.set_sizes([26])
    spread_labels(axes, labels)
    return figure


def _front(means: pd.DataFrame) -> pd.DataFrame:
    """The methods that no other beats in both PSNR and LPIPS, from the lowest LPIPS on."""
    ordered = means.sort_values(["lpips", "psnr"], ascending=[True, False])
    return ordered[ordered["psnr"] > ordered["psnr"].cummax().shift(fill_value=-np.inf)]


def decisions(evaluation: Evaluation, theme: Theme) -> Figure:
    """Mean decision of each scene, over the decisions of an image; markers shrink as images finish.

    Decision 0 only chooses where to start. Of it, t alone is drawn where other decisions follow.
    """
    actions = evaluation.actions
    panels = panel_names()
    scenes = list(actions["scene"].value_counts().index)  # the scenes with most decisions get colors
    rows = -(-(len(panels) + 1) // 3)
    figure = Figure(figsize=(WIDTH, 2.8 * rows), layout="constrained")
    *grid, last = figure.subplots(rows, 3, sharex=True).flat
    for order, scene in enumerate(scenes):
        part = actions[actions["scene"] == scene]
        groups = part.groupby("decision")
        running = groups.size() / part["image"].nunique()
        colored = order < len(MARKERS)
        color, alpha = (theme.cycle[order], 0.9) if colored else (theme.muted, 0.4)
        label = scene.replace("_", " ") if colored else ("other scenes" if order == len(MARKERS) else None)
        for name, axes in zip(panels, grid, strict=False):
            mean = groups[name].mean()
            if name != "t" and len(mean) > 1:
                mean = mean[mean.index > 0]
            axes.plot(mean.index, mean, color=color, linewidth=1.4 if colored else 0.7, alpha=alpha, zorder=2)
            marker, area = (MARKERS[order], 6 + 30 * running[mean.index]) if colored else (".", 6)
            axes.scatter(mean.index, mean, area, color, marker=marker, label=label, alpha=alpha, zorder=3)
    unit = "share of T" if actions["t"].max() <= 1 else "timestep"
    for name, axes in zip(panels, grid, strict=False):
        axes.set_title(f"t ({unit})" if name == "t" else name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    for axes in (*grid[len(panels) :], last):
        axes.axis("off")
    figure.supxlabel("decision (0 chooses where to start)")
    last.legend(*grid[0].get_legend_handles_labels(), loc="center")
    return figure


def panel_names() -> tuple[str, ...]:
    """The columns that `decisions` draws: t, which shows the action that chooses it, and every other action."""
    return ("t", *(name for name in ACTIONS if name != STOPS))


def training(metrics: pd.DataFrame, levels: dict[str, float], theme: Theme) -> Figure:
    """Figure 3: the learner's estimate of its policy's reward over training, beside named levels."""
    figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
    axes = figure.subplots()
    label, when = progress(metrics)
    known = metrics[ESTIMATE].notna()
    dots = "o" if known.sum() < 10 else ""
    line = "estimated offline, from the buffer"
    axes.plot(when[known], metrics.loc[known, ESTIMATE], marker=dots, color=theme.accent, label=line)
    for (name, level), style in zip(levels.items(), ("--", ":"), strict=False):
        axes.axhline(level, color=theme.ink, linestyle=style, linewidth=1.2, label=name)
    axes.margins(y=0.12)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    axes.set(xlabel=label, ylabel="reward per image")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def losses(metrics: pd.DataFrame, theme: Theme) -> Figure:
    """Up to six of the learner's `losses/...` columns, each on an axis of its own."""
    names = loss_columns(metrics)
    rows = -(-len(names) // 2)
    figure = Figure(figsize=(WIDTH, 1.7 * rows + 0.3), layout="constrained")
    grid = figure.subplots(rows, 2, squeeze=False)
    label, when = progress(metrics)
    for name, axes in zip(names, grid.flat, strict=False):
        known = metrics[name].notna()
        axes.plot(when[known], metrics.loc[known, name], color=theme.rival, linewidth=1.2)
        axes.set_title(name.removeprefix("losses/").replace("_", " "))
        axes.set_xlabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    for axes in grid.flat[len(names) :]:
        axes.set_visible(False)
    return figure


def loss_columns(metrics: pd.DataFrame) -> list[str]:
    """The losses worth drawing, the well-known ones first."""
    first = ("losses/value_loss", "losses/policy_loss", "losses/approx_kl", "losses/entropy", "losses/clipfrac")
    present = [name for name in metrics.columns if str(name).startswith("losses/") and metrics[name].notna().sum() > 1]
    return sorted(present, key=lambda name: first.index(name) if name in first else len(first))[:6]


def progress(metrics: pd.DataFrame) -> "tuple[str, pd.Series[float]]":
    """What the x axis of a training curve counts, and its values."""
    for name in ("epoch", "step", "global_step"):
        if name in metrics.columns and metrics[name].notna().all():
            return name.replace("_", " "), metrics[name].astype(float)
    return "row of metrics.csv", pd.Series(np.arange(1.0, len(metrics) + 1), metrics.index)


def side_by_side(evaluation: Evaluation, theme: Theme) -> Figure:
    """Figure 4: a row per scene, a column per method, metrics under each crop."""
    rows = evaluation.examples
    columns = max(len(crops) for _, _, crops in rows)
    figure = Figure(figsize=(1.6 * columns + 0.3, 1.9 * len(rows) + 0.3), layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    above: list[str] = []
    for (scene, _, crops), line in zip(rows, grid, strict=True):
        labels = [crop.label for crop in crops]
        for crop, axes in zip(crops, line, strict=False):
            axes.imshow(pixels.imread(crop.file), cmap="gray", interpolation="nearest")
            if labels != above:  # a heading holds for the rows below, as long as they have the same columns
                axes.set_title(wrap(crop.label, 28), fontsize=8, loc="center")
            axes.text(0.5, -0.03, caption(crop), transform=axes.transAxes, ha="center", va="top", fontsize=7)
        side: dict[str, Any] = {"rotation": 90, "ha": "right", "va": "center", "fontsize": 8}
        line[0].text(-0.05, 0.5, wrap(scene.replace("_", " "), 24), transform=line[0].transAxes, **side)
        above = labels
    return figure


def wrap(text: str, width: int) -> str:
    """A name on at most two lines."""
    return textwrap.fill(text, width, max_lines=2, placeholder="…")


def caption(crop: Example) -> str:
    """The metrics of one crop, two a line."""
    parts = []
    for name, value in crop.metrics.items():
        term = TERMS[name]
        number = f"{value:g}" if value.is_integer() else text(term, value)
        parts.append(f"{term.label} {number} {term.unit}".rstrip())
    return "\n".join(" · ".join(parts[i : i + 2]) for i in range(0, len(parts), 2))
