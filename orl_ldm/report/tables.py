"""The report's tables: all methods, scene by scene (the paper's Table 2), paired intervals, and reward by input."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
from rich.console import Console

from orl_ldm.files import write_text
from orl_ldm.report.cells import Cell, Row, Table, escaped
from orl_ldm.report.inputs import Evaluation, read_evaluation
from orl_ldm.report.statistics import (
    changes,
    columns,
    columns_of,
    means_by_method,
    paired_intervals,
    reward_column,
    summarise,
    text,
    title,
)
from orl_ldm.report.words import verdict_lines
from orl_ldm.reward import Term, weighted
from orl_ldm.terminal import say

#: Explains the marks of every table of differences.
LEGEND = "\N{CHECK MARK} better, \N{BALLOT X} worse: the 95% interval of the paired difference excludes zero."
BEST = (
    "Bold: best value, leaving out the autoencoder's ceiling (it sees the HR image) and, for NFE and time, "
    "methods that never call the denoiser."
)


def overall(evaluation: Evaluation) -> Table:
    """Mean of every column for every method; best values are marked, the steered policy is highlighted."""
    means = summarise(evaluation.per_image, by_scene=False)
    terms = _shown(evaluation)
    best = {term.name: _best(term, means, evaluation.roles.get("ceiling", "")) for term in terms}
    rows = []
    for _, mean in means.iterrows():
        values = (Cell(text(t, mean[t.name]), "best" if mean["method"] in best[t.name] else "") for t in terms)
        rows.append(Row((Cell(mean["method"]), *values), strong=mean["method"] == evaluation.roles.get("steered")))
    return Table(("method", *(_title(term, evaluation) for term in terms)), tuple(rows))


def _shown(evaluation: Evaluation) -> tuple[Term, ...]:
    """All columns but the reward that repeats the pipeline's own setting."""
    return tuple(t for t in columns_of(evaluation.per_image) if t.name != evaluation.repeated_reward)


def _title(term: Term, evaluation: Evaluation) -> str:
    """Title with unit; the pipeline's reward carries the name of its setting."""
    return f"reward {evaluation.setting}" if term.name == "reward" else title(term)


def _best(term: Term, means: pd.DataFrame, ceiling: str) -> set[str]:
    """The methods that share the best printed value, without those that BEST leaves out."""
    ranked = means[means["method"] != ceiling]
    if term.name in ("nfe", "seconds"):
        ranked = ranked[ranked["nfe"] > 0]
    values = ranked[term.name]
    best = text(term, values.max() if term.higher_is_better else values.min()) if len(ranked) else ""
    return {str(name) for name, value in zip(ranked["method"], values, strict=True) if text(term, value) == best}


def by_scene(evaluation: Evaluation) -> Table:
    """LDM alone -> steered in each scene, as in Lyu 2025, Table 2; means of all methods where a role is missing."""
    roles = evaluation.roles
    if "alone" not in roles or "steered" not in roles:
        return _all_by_scene(evaluation)
    terms = [term for term in columns_of(evaluation.per_image) if term.name in weighted()]
    both = evaluation.per_image[evaluation.per_image["method"].isin([roles["alone"], roles["steered"]])]
    scenes = [(str(scene), both[both["scene"] == scene], False) for scene in sorted(both["scene"].unique())]
    rows = []
    for scene, part, strong in [*scenes, ("all scenes", both, True)]:
        means = means_by_method(part)
        if len(means) < 2:  # a scene that only one of the two was run on
            continue
        alone, steered = means[roles["alone"]], means[roles["steered"]]
        change = changes(paired_intervals(part, roles["steered"], roles["alone"]))
        cells = [Cell(scene), Cell(f"{steered['count']:.0f}")]
        cells += [Cell(f"{text(t, alone[t.name])} → {text(t, steered[t.name])}", change[t.name].mark) for t in terms]
        rows.append(Row(tuple(cells), strong))
    return Table(("scene", "images", *map(title, terms)), tuple(rows))


def _all_by_scene(evaluation: Evaluation) -> Table:
    terms = _shown(evaluation)
    means = summarise(evaluation.per_image, by_scene=True).sort_values("scene", kind="stable")
    rows = tuple(
        Row(tuple(map(Cell, (f"{m['scene']}: {m['method']}", str(m["count"]), *(text(t, m[t.name]) for t in terms)))))
        for _, m in means.iterrows()
    )
    return Table(("scene and method", "images", *(_title(term, evaluation) for term in terms)), rows)


def steered_intervals(evaluation: Evaluation) -> pd.DataFrame:
    """Paired intervals of the steered policy against every other method, long form; empty without a steered policy."""
    steered = evaluation.roles.get("steered")
    others = [name for name in evaluation.per_image["method"].unique() if name != steered] if steered else []
    frames = [
        paired_intervals(evaluation.per_image, str(steered), name).assign(method=steered, reference=name)
        for name in others
    ]
    names = ["method", "reference", "metric", "difference", "low", "high", "won", "images"]
    return pd.concat(frames)[names] if frames else pd.DataFrame(columns=names)


def intervals(evaluation: Evaluation, frame: pd.DataFrame) -> Table:
    """One row per reference: the steered policy's difference, its interval, and the share of images won."""
    terms = [term for term in columns() if term.name != "seconds"]  # the others are in intervals.csv
    rows = []
    for reference in frame["reference"].unique():
        change = changes(frame[frame["reference"] == reference])
        cells = [Cell(f"against {reference}")]
        cells += [Cell(c.text, c.mark, f"{c.interval} {c.won:.0%}") for c in (change[term.name] for term in terms)]
        rows.append(Row(tuple(cells), strong=reference == evaluation.roles.get("fixed")))
    return Table(("steered", *(_title(term, evaluation) for term in terms)), tuple(rows))


def reward_by_input(evaluation: Evaluation) -> pd.DataFrame:
    """Mean reward: a row per method, a column per kind of input; NaN where a method was not run on one."""
    frame = evaluation.per_image.pivot_table(index="method", columns="input", values="reward", sort=False)
    return frame.reindex(index=evaluation.per_image["method"].unique(), columns=list(evaluation.inputs))


def by_input(evaluation: Evaluation) -> Table:
    """`reward_by_input` with the best value of each kind marked."""
    frame, ceiling, reward = reward_by_input(evaluation), evaluation.roles.get("ceiling"), reward_column("reward")
    best = {kind: text(reward, frame[kind].drop(ceiling, errors="ignore").max()) for kind in frame.columns}
    rows = []
    for method, line in frame.iterrows():
        shown = {str(kind): "" if pd.isna(value) else text(reward, value) for kind, value in line.items()}
        cells = (Cell(s, "best" if s == best[kind] and method != ceiling else "") for kind, s in shown.items())
        rows.append(Row((Cell(str(method)), *cells), strong=method == evaluation.roles.get("steered")))
    return Table(("method", *(kind or "not named" for kind in frame.columns)), tuple(rows))


def write_tables(folder: Path) -> dict[str, Path]:
    """Write table, table_by_scene and intervals as .csv (all digits) and .md (to read); file name -> path.

    Of several kinds of input, each has its own table in the .md files; table_by_input.csv and .md set their rewards
    side by side.
    """
    evaluation = read_evaluation(folder)
    marks = f"{LEGEND} Percentages: share of images won."
    files = {
        "table.csv": _csv(evaluation, lambda part: summarise(part.per_image, by_scene=False)),
        "table.md": _markdown(evaluation, overall, BEST),
        "table_by_scene.csv": _csv(evaluation, lambda part: summarise(part.per_image, by_scene=True)),
        "table_by_scene.md": _markdown(evaluation, by_scene, LEGEND),
        "intervals.csv": _csv(evaluation, steered_intervals),
        "intervals.md": _markdown(evaluation, lambda part: intervals(part, steered_intervals(part)), marks),
    }
    if len(evaluation.inputs) > 1:
        files["table_by_input.csv"] = reward_by_input(evaluation).to_csv()
        files["table_by_input.md"] = f"{by_input(evaluation).markdown()}\nMean rewards. {BEST}\n"
    for name, content in files.items():
        write_text(folder / name, content)
    return {name: folder / name for name in files}


def _csv(evaluation: Evaluation, make: Callable[[Evaluation], pd.DataFrame]) -> str:
    """The frames of all kinds of input, with a first column `input` where there are several."""
    if len(evaluation.inputs) == 1:
        return make(evaluation).to_csv(index=False)
    frames = {kind: make(evaluation.of_input(kind)) for kind in evaluation.inputs}
    return pd.concat(frames, names=["input"]).reset_index("input").to_csv(index=False)


def _markdown(evaluation: Evaluation, make: Callable[[Evaluation], Table], legend: str) -> str:
    """A table for each kind of input, under its heading, and the legend."""
    tables = (f"## {escaped(name)}\n\n" * bool(name) + make(part).markdown() for name, part in evaluation.parts)
    return "\n".join([*tables, f"{legend}\n"])


def print_table(folder: Path, console: Console) -> None:
    """Print means per method on the first kind of input, the steered policy's intervals, and rewards by input."""
    evaluation = read_evaluation(folder)
    heading, part = evaluation.parts[0]
    images = part.per_image["image"].nunique()
    name = ". ".join(filter(None, (f"{evaluation.facts.get('pipeline', folder.name)}: {images} test images", heading)))
    console.print(overall(part).rich(name, 1 + len(columns())))  # rewards under other settings do not fit
    for line in verdict_lines(part, steered_intervals(part)):
        say(console, line)
    if heading:
        console.print(by_input(evaluation).rich("mean reward by input", 1 + len(evaluation.inputs)))
