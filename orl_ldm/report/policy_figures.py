"""Figures of what the steered policy does: its decisions over the denoising of an image, and what they cost."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from orl_ldm.report.inputs import Evaluation
from orl_ldm.report.style import MARKERS, WIDTH, Theme

PANELS = (
    ("t", "t"),
    ("eta", "eta (fresh noise)"),
    ("detail", "detail (gain)"),
    ("fidelity", "fidelity (projection)"),
    ("grain", "grain (texture)"),
)


def decisions(evaluation: Evaluation, theme: Theme) -> Figure:
    """Mean decision of each scene, over the decisions of an image; markers shrink as images finish.

    Of decision 0, which chooses where to start, only t is drawn where others follow: the rest of it does nothing.
    """
    actions = evaluation.actions
    scenes = list(actions["scene"].value_counts().index)  # colours go to the scenes with most decisions
    figure = Figure(figsize=(WIDTH, 5.6), layout="constrained")
    *panels, spare = figure.subplots(2, 3, sharex=True).flat
    for order, scene in enumerate(scenes):
        part = actions[actions["scene"] == scene]
        groups = part.groupby("decision")
        running = groups.size() / part["image"].nunique()
        coloured = order < len(MARKERS)
        colour, alpha = (theme.cycle[order], 0.9) if coloured else (theme.muted, 0.4)
        label = scene.replace("_", " ") if coloured else ("other scenes" if order == len(MARKERS) else None)
        for (name, _), axes in zip(PANELS, panels, strict=True):
            mean = groups[name].mean()
            if name != "t" and len(mean) > 1:
                mean = mean[mean.index > 0]
            axes.plot(mean.index, mean, color=colour, linewidth=1.4 if coloured else 0.7, alpha=alpha, zorder=2)
            marker, area = (MARKERS[order], 6 + 30 * running[mean.index]) if coloured else (".", 6)
            axes.scatter(mean.index, mean, area, colour, marker=marker, label=label, alpha=alpha, zorder=3)
    for (name, text), axes in zip(PANELS, panels, strict=True):
        axes.set_title(f"{text} ({time_unit(actions)})" if name == "t" else text)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    figure.supxlabel("decision (0 chooses where to start)")
    spare.axis("off")
    spare.legend(*panels[0].get_legend_handles_labels(), loc="center")
    return figure


def time_unit(actions: pd.DataFrame) -> str:
    """The evaluator may count t in timesteps or as a share of all T of them."""
    return "share of T" if actions["t"].max() <= 1 else "timestep"


def nfe_histogram(evaluation: Evaluation, theme: Theme) -> Figure:
    """How many images took how many denoiser calls under the steered policy."""
    calls = evaluation.per_image.loc[evaluation.per_image["method"] == evaluation.roles["steered"], "nfe"]
    values, counts = np.unique(calls.round().astype(int), return_counts=True)
    figure = Figure(figsize=(WIDTH, 2.6), layout="constrained")
    axes = figure.subplots()
    bars = axes.bar(values, counts, width=0.8, color=theme.accent)
    axes.bar_label(bars, padding=2, color=theme.ink)
    axes.set(xlabel="denoiser calls (NFE)", ylabel="images", xlim=(-0.5, max(values.max(), 4) + 0.5))
    axes.margins(y=0.15)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="x", visible=False)
    return figure


def habits(evaluation: Evaluation) -> pd.DataFrame:
    """Per scene: mean NFE, where denoising starts (t after decision 0), and the means of the other actions after it.

    The last row, "all scenes", is over all images and decisions.
    """
    actions = evaluation.actions.assign(start=lambda rows: rows["t"] * rows["t_ratio"])
    steered = evaluation.per_image[evaluation.per_image["method"] == evaluation.roles["steered"]]
    rows = []
    for scene in [*sorted(actions["scene"].unique()), None]:
        part = actions if scene is None else actions[actions["scene"] == scene]
        first, later = part[part["decision"] == 0], part[part["decision"] > 0]
        nfe = steered["nfe"] if scene is None else steered.loc[steered["scene"] == scene, "nfe"]
        rows.append({"scene": scene or "all scenes", "images": part["image"].nunique(), "NFE": nfe.mean()})
        rows[-1] |= {"start t": first["start"].mean(), "spread of start t": first["start"].std()}
        rows[-1] |= {name: later[name].mean() for name, _ in PANELS[1:]}
    return pd.DataFrame(rows)
