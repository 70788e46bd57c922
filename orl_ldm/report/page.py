"""The page: one HTML file about an evaluation, without network access and scripts."""

import base64
import json
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from orl_ldm.actions import ACTIONS
from orl_ldm.files import write_text
from orl_ldm.report import checkpoints, figures
from orl_ldm.report.inputs import Evaluation, read_evaluation, read_training
from orl_ldm.report.style import Drawing, save, save_both
from orl_ldm.report.tables import BEST, LEGEND, by_input, by_scene, intervals, overall, steered_intervals
from orl_ldm.report.words import summary, tiles

#: Entries of facts.json that the page lists -> their names there. All of facts.json is at the page's end.
FACTS = {
    "pipeline": "pipeline",
    "setting": "reward setting",
    "weights": "reward weights",
    "nfe_max": "NFE budget (NFE_max)",
    "images": "test images",
    "size": "HR size (px)",
    "seed": "seed",
    "contract": "metric contract",
    "ldm.id": "LDM",
    "ldm.digest": "LDM digest",
    "policy.algo": "algorithm",
    "policy.steps": "gradient steps",
    "policy.seed": "training seed",
    "policy.buffers": "buffers",
    "policy.episodes": "episodes in the buffers",
    "policy.behavior_reward": "reward logged in the buffers",
    "policy.estimated_reward": "reward estimated offline",
    "fixed_schedule": "best fixed schedule, decision by decision",
    "search_episodes": "episodes of its search",
}


def build_report(folder: Path, train_folder: Path | None) -> Path:
    """Write `folder`/report.html and `folder`/figures/*.png, and return the page's path.

    `train_folder` holds the learner's metrics.csv; None leaves the training curve out. Of several kinds of input, the
    sentences, figures and crops are of the first. Raises UserError when the evaluation or the training is missing or
    malformed.
    """
    evaluation = read_evaluation(folder)
    training = None if train_folder is None else read_training(train_folder)
    judged = None if train_folder is None else checkpoints.read(train_folder / "ope")
    parts = [(heading, part, steered_intervals(part)) for heading, part in evaluation.parts]
    _, first, frame = parts[0]
    page = _template().render(
        evaluation=first,
        name=evaluation.facts.get("pipeline", folder.name),
        sentences=summary(first, frame),
        tiles=tiles(first, frame),
        overall=[(heading, overall(part)) for heading, part, _ in parts],
        by_scene=[(heading, by_scene(part)) for heading, part, _ in parts],
        intervals=[(heading, intervals(part, own)) for heading, part, own in parts if not own.empty],
        by_input=by_input(evaluation) if len(parts) > 1 else None,
        legend=LEGEND,
        best=BEST,
        actions=[ACTIONS[name] for name in figures.panel_names() if name in ACTIONS],
        drawings=_drawings(first, training, judged),
        accepted=accepted(first),
        checkpoints=None if judged is None else checkpoints.table(judged[0]),
        replayed=None if judged is None else judged[1],
        caption=figures.caption,
        alarms=_alarms(evaluation),
        facts=_facts(evaluation.facts),
        raw_facts=json.dumps(evaluation.facts, indent=2, ensure_ascii=False),
    )
    write_text(folder / "report.html", page)
    return folder / "report.html"


def _template() -> Any:
    """The page's template. It escapes every value; an undefined name is an error."""
    room = resources.files("orl_ldm.report")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["inline"] = _inline
    environment.globals["style"] = Markup(room.joinpath("report.css").read_text(encoding="utf-8"))
    return environment.from_string(room.joinpath("report.html.j2").read_text(encoding="utf-8"))


def _inline(path: Path) -> str:
    """A PNG file as a data URI."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"


def _drawings(
    evaluation: Evaluation, training: pd.DataFrame | None, judged: tuple[pd.DataFrame, dict[str, Any]] | None
) -> dict[str, Drawing]:
    """Draw and save every figure that the data allow; name -> files."""
    folder = evaluation.folder / "figures"
    plans = {"frontier": (partial(figures.frontier, evaluation), "PSNR against LPIPS for every method.")}
    if not evaluation.actions.empty:
        plans["decisions"] = (partial(figures.decisions, evaluation), "Mean decisions of each scene over time.")
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


def _policy(evaluation: Evaluation) -> dict[str, Any]:
    """The facts of the policy's training; {} when facts.json has none."""
    policy = evaluation.facts.get("policy")
    return policy if isinstance(policy, dict) else {}


def _alarms(evaluation: Evaluation) -> list[str]:
    """The learner's alarms, metric by metric."""
    alarms = _policy(evaluation).get("alarms")
    return [f"{name}: {count}" for name, count in alarms.items()] if isinstance(alarms, dict) else []


def accepted(evaluation: Evaluation) -> str:
    """Which checkpoint the policy is, its estimate, and its replay on the test images."""
    chosen = _policy(evaluation).get("accepted")
    if not isinstance(chosen, dict) or "epoch" not in chosen:
        return ""
    words = f"The policy is that of epoch {chosen['epoch']}: {chosen.get('why', '')}"
    if "reward" not in chosen:
        return f"{words}."
    words += f", estimated at {chosen['reward']:.4f} [{chosen['low']:.4f}, {chosen['high']:.4f}] there"
    words += f" (the behaviour had {chosen['behavior']:.4f})."
    replayed = _replayed(evaluation)
    return words if replayed is None else f"{words} Its replay on the test images gave {replayed:.4f}."


def _levels(evaluation: Evaluation) -> dict[str, float]:
    """Rewards to compare the learner's estimate with."""
    policy, levels = _policy(evaluation), {}
    replayed = _replayed(evaluation)
    if replayed is not None:
        levels["replayed on the test images"] = replayed
    if isinstance(policy.get("behavior_reward"), int | float):
        levels["logged in the buffer"] = float(policy["behavior_reward"])
    return levels


def _replayed(evaluation: Evaluation) -> float | None:
    """The policy's mean reward on the test images under the weights of its training; None where it is not known.

    The evaluation has other weights when a preference was given.
    """
    if "steered" not in evaluation.roles:
        return None
    policy, weights = _policy(evaluation), evaluation.facts.get("weights")
    column = "reward" if policy.get("weights", weights) == weights else f"reward_{policy.get('setting')}"
    if column not in evaluation.per_image:
        return None
    steered = evaluation.per_image["method"] == evaluation.roles["steered"]
    return float(evaluation.per_image.loc[steered, column].mean())


def _facts(facts: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """(name, lines) of the entries of FACTS that there are; an object gives a line per entry."""
    listed = []
    for path, name in FACTS.items():
        value: Any = facts
        for key in path.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, dict):
            lines = [f"{key}: {_fact(entry)}" for key, entry in value.items()]
        else:
            lines = [_fact(entry) for entry in value] if isinstance(value, list) else [_fact(value)]
        if value not in (None, "", [], {}):
            listed.append((name, lines))
    return listed


def _fact(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_fact(entry)}" for key, entry in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
