"""The page: everything about one evaluation in a single file that needs no network and no script."""

import base64
import json
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from orl_ldm.report import checkpoints, figures, policy_figures
from orl_ldm.report.cells import Cell, Row, Table
from orl_ldm.report.facts import listed
from orl_ldm.report.inputs import Evaluation, read_evaluation, read_training
from orl_ldm.report.style import Drawing, save, save_both
from orl_ldm.report.tables import BEST, LEGEND, by_scene, intervals, overall, steered_intervals, write_whole
from orl_ldm.report.words import summary, tiles


def build_report(folder: Path, train_folder: Path | None) -> Path:
    """Write `folder`/report.html and `folder`/figures/*.png, and return the page's path.

    `train_folder` holds the learner's metrics.csv; None leaves the training curve out.
    Raises UserError when the evaluation or the training is missing or malformed.
    """
    evaluation = read_evaluation(folder)
    training = None if train_folder is None else read_training(train_folder)
    judged = None if train_folder is None else checkpoints.read(train_folder / "ope")
    frame = steered_intervals(evaluation)
    page = _template().render(
        evaluation=evaluation,
        name=evaluation.facts.get("pipeline", folder.name),
        sentences=summary(evaluation, frame),
        tiles=tiles(evaluation, frame),
        overall=overall(evaluation),
        by_scene=by_scene(evaluation),
        intervals=intervals(evaluation, frame),
        legend=LEGEND,
        best=BEST,
        habits=_habits(evaluation),
        drawings=_drawings(evaluation, training, judged),
        accepted=_accepted(evaluation),
        checkpoints=None if judged is None else checkpoints.table(judged[0]),
        replayed=None if judged is None else judged[1],
        caption=figures.caption,
        time_unit=policy_figures.time_unit(evaluation.actions) if not evaluation.actions.empty else "",
        alarms=_alarms(evaluation),
        facts=listed(evaluation.facts),
        raw_facts=json.dumps(evaluation.facts, indent=2, ensure_ascii=False),
    )
    path = folder / "report.html"
    write_whole(path, page)
    return path


def _template() -> Any:
    """The page's template, which escapes every name that it is given; a forgotten name is an error, not a gap."""
    room = resources.files("orl_ldm.report")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["inline"] = _inline
    environment.globals["style"] = Markup(room.joinpath("report.css").read_text(encoding="utf-8"))
    return environment.from_string(room.joinpath("report.html.j2").read_text(encoding="utf-8"))


def _inline(path: Path) -> str:
    """A PNG file as a data URI."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"


def _policy(evaluation: Evaluation) -> dict[str, Any]:
    """What is known about the policy's training; {} when facts.json does not say."""
    policy = evaluation.facts.get("policy")
    return policy if isinstance(policy, dict) else {}


def _alarms(evaluation: Evaluation) -> list[str]:
    """The learner's warnings about the policy, metric by metric; they belong beside its results."""
    alarms = _policy(evaluation).get("alarms")
    return [f"{name}: {count}" for name, count in alarms.items()] if isinstance(alarms, dict) else []


def _accepted(evaluation: Evaluation) -> str:
    """Which checkpoint the policy is, and by what estimate, beside what its replay on the test images gave."""
    accepted = _policy(evaluation).get("accepted")
    if not isinstance(accepted, dict) or "epoch" not in accepted:
        return ""
    words = f"The policy is that of epoch {accepted['epoch']}: {accepted.get('why', '')}"
    if "reward" not in accepted:
        return f"{words}."
    words += f", estimated at {accepted['reward']:.4f} [{accepted['low']:.4f}, {accepted['high']:.4f}] there"
    words += f" (the behaviour had {accepted['behavior']:.4f})."
    replayed = _replayed(evaluation)
    return words if replayed is None else f"{words} Its replay on the test images gave {replayed:.4f}."


def _drawings(
    evaluation: Evaluation, training: pd.DataFrame | None, judged: tuple[pd.DataFrame, dict[str, Any]] | None
) -> dict[str, Drawing]:
    """Draw and save every figure that the data allow; name -> files."""
    folder = evaluation.folder / "figures"
    plans = {"frontier": (partial(figures.frontier, evaluation), "PSNR against LPIPS for every method.")}
    if "steered" in evaluation.roles:
        draw = partial(policy_figures.nfe_histogram, evaluation)
        plans["nfe_histogram"] = (draw, "Number of images by denoiser calls.")
    if not evaluation.actions.empty:
        plans["decisions"] = (partial(policy_figures.decisions, evaluation), "Mean decisions of each scene over time.")
    if training is not None and figures.ESTIMATE in training.columns:
        draw = partial(figures.training, training, _levels(evaluation))
        plans["figure3_training"] = (draw, "Estimated reward over training.")
    if training is not None and figures.loss_columns(training):
        plans["losses"] = (partial(figures.losses, training), "Losses over training.")
    if judged is not None:
        draw = partial(checkpoints.scatter, *judged)
        plans["checkpoints"] = (draw, "Estimated reward of each checkpoint against its replayed reward.")
    if evaluation.examples:  # for papers and slides; the page shows the crops themselves
        save(folder, "figure4_side_by_side", partial(figures.side_by_side, evaluation))
    return {name: save_both(folder, name, draw, alt) for name, (draw, alt) in plans.items()}


def _levels(evaluation: Evaluation) -> dict[str, float]:
    """Rewards to hold the learner's estimate against; none when it learned in units of its own."""
    policy, levels = _policy(evaluation), {}
    if policy.get("term_scale", "natural") != "natural":
        return {}
    replayed = _replayed(evaluation)
    if replayed is not None:
        levels["replayed on the test images"] = replayed
    if isinstance(policy.get("behavior_reward"), int | float):
        levels["logged in the buffer"] = float(policy["behavior_reward"])
    return levels


def _replayed(evaluation: Evaluation) -> float | None:
    """The policy's mean reward on the test images, in the weights that it was judged by; None where it is not known.

    The evaluation's own are others where the dial was turned.
    """
    if "steered" not in evaluation.roles:
        return None
    policy, weights = _policy(evaluation), evaluation.facts.get("weights")
    column = "reward"
    if policy.get("weights", weights) != weights:
        column = f"reward_{policy.get('setting')}"  # a named setting's, as its weights are those of no other
    if column not in evaluation.per_image:
        return None
    steered = evaluation.per_image["method"] == evaluation.roles["steered"]
    return float(evaluation.per_image.loc[steered, column].mean())


def _habits(evaluation: Evaluation) -> Table | None:
    """What the policy does in each scene, as a table."""
    if evaluation.actions.empty or "steered" not in evaluation.roles:
        return None
    frame = policy_figures.habits(evaluation)
    digits = {"NFE": 1, "start t": 2 if policy_figures.time_unit(evaluation.actions) == "share of T" else 0}
    digits["spread of start t"] = digits["start t"]
    rows = []
    for number, (_, line) in enumerate(frame.iterrows(), 1):
        cells = [Cell(str(line["scene"])), Cell(str(line["images"]))]
        cells += [
            Cell(f"{line[name]:.{digits.get(name, 2)}f}" if pd.notna(line[name]) else "") for name in frame.columns[2:]
        ]
        rows.append(Row(tuple(cells), strong=number == len(frame)))
    return Table(tuple(frame.columns), tuple(rows))
