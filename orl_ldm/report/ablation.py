"""The table of ablations: what every variant of a training reaches, and how it differs from the whole."""

import pandas as pd

from orl_ldm.report.cells import Cell, Row, Table
from orl_ldm.report.statistics import METRICS, changes, means_by_method, paired_intervals

WHOLE = "everything"
LEGEND = (
    "Means over images and seeds; ± is the standard deviation of the seeds' mean rewards. In brackets: 95% interval "
    "over images of the paired difference from the first row, both averaged over seeds, and the share of images won."
)


def ablation(scores: pd.DataFrame) -> Table:
    """One row per variant, of scores with the columns variant, seed, image, scene, and METRICS' but for seconds."""
    metrics = [metric for metric in METRICS if metric.name != "seconds"]
    names = [metric.name for metric in metrics]
    seeds = scores.groupby(["variant", "seed"], sort=False)["reward"].mean()
    each = scores.groupby(["variant", "image", "scene"], sort=False)[names].mean().reset_index()
    each = each.rename(columns={"variant": "method"})
    means = means_by_method(each)
    rows = []
    for variant in scores["variant"].unique():
        cells = [Cell(metric.text(means[variant][metric.name])) for metric in metrics[:-1]]
        spread = seeds[variant].std()
        reward = f"{means[variant]['reward']:.4f}" + (f" ± {spread:.4f}" if pd.notna(spread) else "")
        difference = Cell("")
        if variant != WHOLE and WHOLE in means:
            change = changes(paired_intervals(each, variant, WHOLE))["reward"]
            difference = Cell(change.text, change.mark, f"{change.interval} {change.won:.0%}")
        cells += [Cell(reward), difference]
        rows.append(Row((Cell(variant), Cell(str(len(seeds[variant]))), *cells), strong=variant == WHOLE))
    header = ("variant", "seeds", *(metric.title for metric in metrics), "difference")
    return Table(header, tuple(rows))
