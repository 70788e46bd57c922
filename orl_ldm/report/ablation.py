"""The table of ablations: the reward of every variant of a training, and its difference from the complete one."""

import pandas as pd

from orl_ldm.report.cells import Cell, Row, Table
from orl_ldm.report.statistics import changes, columns, means_by_method, paired_intervals, text, title

WHOLE = "everything"
LEGEND = (
    "Means over images and seeds; ± is the standard deviation of the seeds' mean rewards. In brackets: 95% interval "
    "over images of the paired difference from the first row, both averaged over seeds, and the share of images won."
)


def ablation(scores: pd.DataFrame) -> Table:
    """One row per variant, of scores with the columns variant, seed, image, scene, and those of an evaluation."""
    terms = [term for term in columns() if term.name not in ("seconds", "reward")]
    seeds = scores.groupby(["variant", "seed"], sort=False)["reward"].mean()
    names = [*(term.name for term in terms), "reward"]
    each = scores.groupby(["variant", "image", "scene"], sort=False)[names].mean().reset_index()
    each = each.rename(columns={"variant": "method"})
    means = means_by_method(each)
    rows = []
    for variant in scores["variant"].unique():
        cells = [Cell(text(term, means[variant][term.name])) for term in terms]
        spread = seeds[variant].std()
        reward = f"{means[variant]['reward']:.4f}" + (f" ± {spread:.4f}" if pd.notna(spread) else "")
        difference = Cell("")
        if variant != WHOLE and WHOLE in means:
            change = changes(paired_intervals(each, variant, WHOLE))["reward"]
            difference = Cell(change.text, change.mark, f"{change.interval} {change.won:.0%}")
        cells += [Cell(reward), difference]
        rows.append(Row((Cell(variant), Cell(str(len(seeds[variant]))), *cells), strong=variant == WHOLE))
    return Table(("variant", "seeds", *map(title, terms), "reward", "difference"), tuple(rows))
