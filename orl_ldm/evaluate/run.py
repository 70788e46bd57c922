"""Evaluate: score every method on held-out images, with results kept per method and batch so that it can resume.

Writes, in `config.out`: per_image.csv, actions.csv, facts.json, examples/, images.txt, and parts/ (to resume from).
Every method is scored on the same images under each kind of input (`evaluate.degradations`).
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from orl_ldm.config import digest
from orl_ldm.diffusion.config import LDMConfig, SamplerConfig
from orl_ldm.diffusion.ldm import LDM, open_ldm
from orl_ldm.diffusion.model_files import model_files
from orl_ldm.env.spaces import spec
from orl_ldm.errors import UserError
from orl_ldm.evaluate import methods as m
from orl_ldm.evaluate.config import EvaluateConfig
from orl_ldm.evaluate.examples import write_examples
from orl_ldm.evaluate.fixed import FixedSchedule, search, starts
from orl_ldm.evaluate.runner import VERSION, Advance, Runner, decisions, per_image
from orl_ldm.evaluate.tries import Tries
from orl_ldm.files import write_text, writing
from orl_ldm.images.config import DataConfig
from orl_ldm.images.pairs import load_pairs
from orl_ldm.images.sources import open_images
from orl_ldm.locks import locked
from orl_ldm.metrics import CONTRACT, Metrics
from orl_ldm.policy import open_policy
from orl_ldm.reward import Weights

#: Steps of plain samplers of the frontier
FRONTIER_STEPS = (5, 10, 20, 50)


@dataclass(frozen=True)
class Task:
    """All that an evaluation reads."""

    name: str
    config: EvaluateConfig
    data: DataConfig
    ldm: LDMConfig
    sampler: SamplerConfig
    policy: Path
    command: str


def evaluate(task: Task, advance: Advance = lambda what, done, total: None) -> Path:
    """Run whatever is not yet done and write the results; returns the folder. Raises UserError for what is wrong."""
    config, out = task.config, Path(task.config.out)
    opened = open_policy(task.policy, config.prefer, spec())
    facts, who = opened.facts, f"the policy in {str(task.policy)!r}"
    if facts.get("nfe_max", task.sampler.nfe_max) != task.sampler.nfe_max:
        raise UserError(
            f"the policy was trained for sampler.nfe_max = {facts['nfe_max']}, not {task.sampler.nfe_max}: set it alike"
        )
    episodes = config.search_episodes or int(facts.get("episodes", 0))
    if not episodes:
        raise UserError(
            f"{who} does not say how many episodes it was learned from: set evaluate.search_episodes, the budget of "
            "the searches for fixed schedules"
        )
    ldm = open_ldm(task.ldm)
    ldm.require(task.data.size, task.data.scale)
    refs = open_images(
        task.data.source, task.data.test_split, task.data.classes, config.images, task.data.seed, task.data.image_column
    )
    metrics = Metrics(ldm.device)
    kinds = {kind: replace(task.data, degradation=kind) for kind in config.degradations or (task.data.degradation,)}
    runners = {
        kind: Runner(out / "parts", refs, data, ldm, metrics, config.batch_size, advance)
        for kind, data in kinds.items()
    }
    main, runner = next(iter(runners.items()))
    frontier = [steered_at(ldm, task, words, name=f"steered, prefer {words}") for words in config.frontier]
    networks = [m.network(path, ldm.scale, ldm.device) for path in config.spandrel]
    fixed = {
        name: _best_fixed(replace(task, data=kinds[kind]), ldm, metrics, opened.weights, episodes, form, advance)
        for name, kind, form in controls(tuple(kinds))
    }
    steered = steered_at(ldm, task, config.prefer)
    first = runner.score(steered)
    same = max(1, round(float(first.nfe.mean())))
    plan = _plan(task, ldm, networks, {name: schedule for name, (schedule, _) in fixed.items()}, same)
    order = [*plan, *frontier, steered]
    scores = {(method.name, kind): one.score(method) for kind, one in runners.items() for method in order}
    # By reward on training images, among the controls that were searched for the first kind.
    best = max((name for name, kind, _ in controls(tuple(kinds)) if kind == main), key=lambda name: fixed[name][1])
    roles = {
        "bicubic": "bicubic",
        "ceiling": "autoencoder ceiling",
        "alone": _alone(config.ddim_steps, config.etas[0]),
        "fixed": best,
        "steered": steered.name,
    }
    table = per_image(scores, refs, opened.weights, task.sampler.nfe_max)
    write_text(out / "per_image.csv", table.to_csv(index=False, float_format="%.6g"))
    write_text(out / "actions.csv", decisions(first, refs).to_csv(index=False, float_format="%.6g"))
    shown = {role: scores[name, main] for role, name in roles.items()}
    write_examples(out / "examples", refs, kinds[main], shown, roles)
    write_text(out / "images.txt", "".join(f"{ref.name}\n" for ref in refs))
    summary = {
        "pipeline": task.name,
        "setting": config.prefer or facts.get("setting", ""),
        "weights": opened.weights,
        "images": len(refs),
        "inputs": list(kinds),
        "size": task.data.size,
        "seed": config.seed,
        "contract": CONTRACT,
        "ldm": {"id": ldm.ldm_id, "digest": ldm.digest},
        "same_ldm_as_learned": facts.get("ldm_digest", ldm.digest) == ldm.digest,
        "nfe_max": task.sampler.nfe_max,
        "policy": facts,
        # From there to here, so that both can be moved, or read from anywhere.
        "policy_folder": os.path.relpath(task.policy.resolve(), out.resolve()),
        "roles": roles,
        "fixed_schedule": fixed[best][0].described(),
        "fixed_schedules": {name: schedule.described() for name, (schedule, _) in fixed.items()},
        "fixed_train_rewards": {name: reward for name, (_, reward) in fixed.items()},
        "search_episodes": episodes,
        "command": task.command,
    }
    write_text(out / "facts.json", json.dumps(summary, indent=2) + "\n")
    return out


def controls(kinds: tuple[str, ...]) -> list[tuple[str, str, str]]:
    """(name, kind of input, form) of each fixed control that is searched: both forms, or a schedule for each kind."""
    if len(kinds) == 1:
        return [(f"best fixed {form}", kinds[0], form) for form in starts()]
    return [(f"best fixed schedule for {kind}", kind, "schedule") for kind in kinds]


def steered_at(ldm: LDM, task: Task, prefer: str, name: str = "steered") -> m.Method:
    """The policy under a preference as a method."""
    opened = open_policy(task.policy, prefer, spec())
    key = digest(opened.digest, opened.weights, asdict(task.sampler))
    return replace(m.steered(ldm, opened.policy, key, task.sampler, task.config.seed), name=name)


def _alone(steps: int, eta: float) -> str:
    return f"LDM, DDIM {steps}, eta {eta:g}"


def _plan(
    task: Task, ldm: LDM, networks: Sequence[m.Method], fixed: dict[str, FixedSchedule], same: int
) -> list[m.Method]:
    """Every method but the steered one, in the order of the table."""
    seed, steps = task.config.seed, task.config.ddim_steps
    alone = [m.ldm_alone(ldm, ldm.schedule.grid(steps), eta, _alone(steps, eta), seed) for eta in task.config.etas]
    grid = ldm.schedule.grid(same, "trailing")
    alone.append(m.ldm_alone(ldm, grid, 0, f"LDM, DDIM {same} (same NFE)", seed))
    more = FRONTIER_STEPS if task.config.frontier else ()
    alone += [m.ldm_alone(ldm, ldm.schedule.grid(n, "trailing"), 0, f"LDM, DDIM {n}", seed) for n in more if n != same]
    solvers = [
        m.dpm_solver(ldm, model_files(task.ldm.id).scheduler, n, seed)
        for n in sorted({10, 20, *(n for n in more if n <= 20)})
    ]
    controls = [
        m.steered_by(ldm, name, f"fixed/{one}/{task.sampler}/{seed}", one.controller(), task.sampler, seed)
        for name, one in fixed.items()
    ]
    projected = [m.with_projection(method) for method in alone]
    return [*m.interpolations(ldm), *networks, *alone, *projected, *solvers, *controls]


def _best_fixed(
    task: Task,
    ldm: LDM,
    metrics: Metrics,
    weights: Weights,
    episodes: int,
    kind: str,
    advance: Advance,
) -> tuple[FixedSchedule, float]:
    """Search once for these settings and keep the answer beside the results; until then, the reward of every try."""
    config, data = task.config, task.data
    what = (asdict(data), asdict(task.sampler), ldm.digest, str(ldm.dtype), weights, CONTRACT)
    key = digest(VERSION, what, episodes, config.search_images, config.seed, kind)
    path = Path(config.out) / "parts" / f"fixed-{key[:16]}.json"
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)

    def heard(done: int, total: int) -> None:
        advance(f"search: best fixed {kind}", done, total)

    with locked(path.with_suffix(".lock"), f"searches a fixed {kind} in {config.out!r}"):
        if not path.exists():
            refs = open_images(
                data.source, data.train_split, data.classes, config.search_images, data.seed, data.image_column
            )
            images, tries = load_pairs(refs, data), path.with_suffix(".tries")
            found, reward = search(
                ldm, images, metrics, weights, task.sampler, episodes, config.seed, kind, heard, Tries(tries)
            )
            write_text(path, json.dumps({"actions": found.actions, "reward": reward}))
            tries.unlink()
    kept = json.loads(path.read_text(encoding="utf-8"))
    return FixedSchedule(tuple(tuple(action) for action in kept["actions"])), float(kept["reward"])
