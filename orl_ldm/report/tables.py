"""The report's tables: all methods, the paper's Table 2 (scene by scene), and paired intervals."""

from pathlib import Path

import pandas as pd

from orl_ldm.report.cells import Cell, Row, Table
from orl_ldm.report.inputs import Evaluation, read_evaluation
from orl_ldm.report.statistics import (
    METRICS,
    Metric,
    changes,
    means_by_method,
    metrics_of,
    paired_intervals,
    summarise,
)

#: What every table of differences needs to say, once, beside it.
LEGEND = "\N{CHECK MARK} better, \N{BALLOT X} worse: the 95% interval of the paired difference excludes zero."
BEST = (
    "Bold: best value, leaving out the autoencoder's ceiling (it sees the HR image) and, for NFE and time, "
    "methods that never call the denoiser."
)


def shown_metrics(evaluation: Evaluation) -> tuple[Metric, ...]:
    """All metrics but the reward column that only repeats the pipeline's own setting."""
    return tuple(m for m in metrics_of(evaluation.per_image) if m.name != evaluation.repeated_reward)


def title(metric: Metric, evaluation: Evaluation) -> str:
    """Column title with unit; the pipeline's reward carries the name of its setting."""
    return f"reward {evaluation.setting}" if metric.name == "reward" else metric.title


def overall(evaluation: Evaluation) -> Table:
    """Mean of every metric for every method, best values marked, the steered policy set apart."""
    means = summarise(evaluation.per_image, by_scene=False)
    metrics = shown_metrics(evaluation)
    best = {metric.name: _best(metric, means, evaluation.roles.get("ceiling", "")) for metric in metrics}
    rows = []
    for _, mean in means.iterrows():
        values = (Cell(m.text(mean[m.name]), "best" if mean["method"] in best[m.name] else "") for m in metrics)
        rows.append(Row((Cell(mean["method"]), *values), strong=mean["method"] == evaluation.roles.get("steered")))
    return Table(("method", *(title(metric, evaluation) for metric in metrics)), tuple(rows))


def _best(metric: Metric, means: pd.DataFrame, ceiling: str) -> set[str]:
    """The methods that share the best printed value, among those for which being best means something (see BEST)."""
    ranked = means[means["method"] != ceiling]
    if metric.name in ("nfe", "seconds"):
        ranked = ranked[ranked["nfe"] > 0]
    values = ranked[metric.name]
    best = metric.text(values.max() if metric.higher_is_better else values.min()) if len(ranked) else ""
    return {str(name) for name, value in zip(ranked["method"], values, strict=True) if metric.text(value) == best}


def by_scene(evaluation: Evaluation) -> Table:
    """LDM alone -> steered in each scene, as in Lyu 2025, Table 2; means of all methods where a role is missing."""
    roles = evaluation.roles
    if "alone" not in roles or "steered" not in roles:
        return _all_by_scene(evaluation)
    metrics = [metric for metric in metrics_of(evaluation.per_image) if metric.name in ("psnr", "ssim", "lpips", "nfe")]
    both = evaluation.per_image[evaluation.per_image["method"].isin([roles["alone"], roles["steered"]])]
    scenes = [(str(scene), both[both["scene"] == scene], False) for scene in sorted(both["scene"].unique())]
    rows = []
    for scene, part, strong in [*scenes, ("all scenes", both, True)]:
        means = means_by_method(part)
        if len(means) < 2:  # a scene that only one of the two has seen
            continue
        alone, steered = means[roles["alone"]], means[roles["steered"]]
        change = changes(paired_intervals(part, roles["steered"], roles["alone"]))
        cells = [Cell(scene), Cell(f"{steered['count']:.0f}")]
        cells += [Cell(f"{m.text(alone[m.name])} → {m.text(steered[m.name])}", change[m.name].mark) for m in metrics]
        rows.append(Row(tuple(cells), strong))
    return Table(("scene", "images", *(title(metric, evaluation) for metric in metrics)), tuple(rows))


def _all_by_scene(evaluation: Evaluation) -> Table:
    metrics = shown_metrics(evaluation)
    means = summarise(evaluation.per_image, by_scene=True).sort_values("scene", kind="stable")
    rows = tuple(
        Row(tuple(map(Cell, (f"{m['scene']}: {m['method']}", str(m["count"]), *(k.text(m[k.name]) for k in metrics)))))
        for _, m in means.iterrows()
    )
    return Table(("scene and method", "images", *(title(metric, evaluation) for metric in metrics)), rows)


def steered_intervals(evaluation: Evaluation) -> pd.DataFrame:
    """Paired intervals of the steered policy against every other method, long form; empty without a steered policy."""
    steered = evaluation.roles.get("steered")
    others = [name for name in evaluation.per_image["method"].unique() if name != steered] if steered else []
    frames = [
        paired_intervals(evaluation.per_image, str(steered), name).assign(method=steered, reference=name)
        for name in others
    ]
    columns = ["method", "reference", "metric", "difference", "low", "high", "won", "images"]
    return pd.concat(frames)[columns] if frames else pd.DataFrame(columns=columns)


def intervals(evaluation: Evaluation, frame: pd.DataFrame) -> Table:
    """One row per reference: the steered policy's difference, its interval, and the share of images won."""
    metrics = [metric for metric in METRICS if metric.name != "seconds"]  # the others are in intervals.csv
    rows = []
    for reference in frame["reference"].unique():
        change = changes(frame[frame["reference"] == reference])
        cells = [Cell(f"against {reference}")]
        shown = (change[metric.name] for metric in metrics)
        cells += [Cell(c.text, c.mark, f"{c.interval} {c.won:.0%}") for c in shown]
        rows.append(Row(tuple(cells), strong=reference == evaluation.roles.get("fixed")))
    return Table(("steered", *(title(metric, evaluation) for metric in metrics)), tuple(rows))


def write_tables(folder: Path) -> dict[str, Path]:
    """Write table, table_by_scene and intervals as .csv (all digits) and .md (to read); file name -> path."""
    evaluation = read_evaluation(folder)
    frame = steered_intervals(evaluation)
    files = {
        "table.csv": summarise(evaluation.per_image, by_scene=False).to_csv(index=False),
        "table.md": f"{overall(evaluation).markdown()}\n{BEST}\n",
        "table_by_scene.csv": summarise(evaluation.per_image, by_scene=True).to_csv(index=False),
        "table_by_scene.md": f"{by_scene(evaluation).markdown()}\n{LEGEND}\n",
        "intervals.csv": frame.to_csv(index=False),
        "intervals.md": f"{intervals(evaluation, frame).markdown()}\n{LEGEND} Percentages: share of images won.\n",
    }
    for name, text in files.items():
        write_whole(folder / name, text)
    return {name: folder / name for name in files}


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a reader never meets half of it."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
