"""Evaluate: score every method on held-out images, with results kept per method and batch so that it can resume.

Writes, in `config.out`: per_image.csv, actions.csv, facts.json, examples/, images.txt, and parts/ (to resume from).
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from orl_ldm.actions import ACTIONS
from orl_ldm.alone import alone
from orl_ldm.config import digest
from orl_ldm.diffusion.config import LDMConfig, SamplerConfig
from orl_ldm.diffusion.ldm import LDM, open_ldm, scheduler_config
from orl_ldm.env.spaces import spec
from orl_ldm.errors import UserError
from orl_ldm.evaluate import methods as m
from orl_ldm.evaluate.config import EvaluateConfig
from orl_ldm.evaluate.examples import write_examples
from orl_ldm.evaluate.fixed import FixedSchedule, search, starts
from orl_ldm.evaluate.tries import Tries
from orl_ldm.images.config import DataConfig
from orl_ldm.images.pairs import Batch, load_pairs
from orl_ldm.images.sources import ImageRef, open_images
from orl_ldm.metrics import Contract, Metrics
from orl_ldm.policy import OpenedPolicy, open_policy
from orl_ldm.reward import SETTINGS, Weights, compose

Advance = Callable[[str, int, int], None]

#: Of what is kept in parts/: raised when the same settings come to give other numbers, so that no old ones are read.
VERSION = 1

#: Steps of plain samplers that a frontier shows beside the dial.
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


@dataclass(frozen=True)
class Scores:
    """One method on all images, in their order."""

    quality: npt.NDArray[np.float32]  # (N, 3) PSNR, SSIM, LPIPS
    nfe: npt.NDArray[np.int64]  # (N,)
    seconds: npt.NDArray[np.float64]  # (N,)
    pixels: npt.NDArray[np.uint8]  # (N, H, W, 3)
    decisions: npt.NDArray[np.float32]  # (M, 8), slot counted over all images; empty for methods without any


def evaluate(task: Task, advance: Advance = lambda what, done, total: None) -> Path:
    """Run whatever is not yet done and write the results; returns the folder. Raises UserError for what is wrong."""
    config, out = task.config, Path(task.config.out)
    opened = open_policy(task.policy, config.prefer, spec())
    facts, weights, who = opened.facts, opened.weights, f"the policy in {str(task.policy)!r}"
    if facts.get("nfe_max", task.sampler.nfe_max) != task.sampler.nfe_max:
        raise UserError(
            f"the policy was trained for sampler.nfe_max = {facts['nfe_max']}, not {task.sampler.nfe_max}: set it alike"
        )
    ldm = open_ldm(task.ldm)
    ldm.require(task.data.size, task.data.scale)
    refs = open_images(task.data.source, task.data.test_split, task.data.classes, config.images, task.data.seed)
    metrics = Metrics(Contract(), ldm.device)
    runner = Runner(out / "parts", refs, task.data, ldm, metrics, config.batch_size, advance)

    episodes = config.search_episodes or int(facts.get("episodes", 0))
    if not episodes:
        raise UserError(
            f"{who} is a kept checkpoint, not the policy of a finished training: give that training's folder as "
            "train.out; `orl-ldm ope` replays checkpoints"
        )
    frontier = _frontier(task, ldm)
    networks = [m.network(path, ldm.scale, ldm.device) for path in config.spandrel]
    fixed = {
        f"best fixed {kind}": _best_fixed(task, ldm, metrics, weights, episodes, kind, advance) for kind in starts()
    }
    best = max(fixed, key=lambda name: fixed[name][1])  # by its reward on training images
    steered = m.steered(ldm, opened.policy, identity(opened, task.sampler), task.sampler, config.seed)
    scores = {steered.name: runner.score(steered)}
    same = max(1, round(float(scores[steered.name].nfe.mean())))
    plan = _plan(task, ldm, networks, {name: schedule for name, (schedule, _) in fixed.items()}, same)
    scores = {method.name: runner.score(method) for method in [*plan, *frontier]} | scores
    roles = {
        "bicubic": "bicubic",
        "ceiling": "autoencoder ceiling",
        "alone": _alone(config.ddim_steps, config.etas[0]),
        "fixed": best,
        "steered": steered.name,
    }
    table = per_image(scores, refs, weights, task.sampler.nfe_max)
    _write_csv(table, out / "per_image.csv")
    _write_csv(_actions(scores[steered.name], refs), out / "actions.csv")
    write_examples(out / "examples", refs, task.data, {role: scores[name] for role, name in roles.items()}, roles)
    (out / "images.txt").write_text("".join(f"{ref.name}\n" for ref in refs))
    summary = {
        "pipeline": task.name,
        "setting": config.prefer or facts.get("setting", ""),
        "weights": weights,
        "images": len(refs),
        "size": task.data.size,
        "seed": config.seed,
        "contract": Contract().describe(),
        "ldm": {"id": ldm.ldm_id, "digest": ldm.digest},
        "same_ldm_as_learned": facts.get("ldm_digest", ldm.digest) == ldm.digest,
        "nfe_max": task.sampler.nfe_max,
        "policy": facts,
        # From there to here, so that both can be moved, or read from anywhere.
        "policy_folder": os.path.relpath(task.policy.resolve(), out.resolve()),
        "roles": roles,
        "fixed_schedule": fixed[best][0].described(),
        "fixed_train_rewards": {name: reward for name, (_, reward) in fixed.items()},
        "search_episodes": episodes,
        "command": task.command,
    }
    (out / "facts.json").write_text(json.dumps(summary, indent=2) + "\n")
    return out


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
        m.dpm_solver(ldm, scheduler_config(task.ldm.id), n, seed)
        for n in sorted({10, 20, *(n for n in more if n <= 20)})
    ]
    controls = [
        m.steered_by(
            ldm, name, f"fixed/{asdict(one)}/{asdict(task.sampler)}/{seed}", one.controller(), task.sampler, seed
        )
        for name, one in fixed.items()
    ]
    projected = [m.with_projection(method) for method in alone]
    return [*m.interpolations(ldm), *networks, *alone, *projected, *solvers, *controls]


def _frontier(task: Task, ldm: LDM) -> list[m.Method]:
    """The same policy at every preference of the frontier."""
    methods = []
    for words in task.config.frontier:
        opened = open_policy(task.policy, words, spec())
        method = m.steered(ldm, opened.policy, identity(opened, task.sampler), task.sampler, task.config.seed)
        methods.append(replace(method, name=f"steered, prefer {words}"))
    return methods


def identity(opened: OpenedPolicy, sampler: SamplerConfig) -> str:
    """What a steered method's results depend on, beside LDM and images."""
    return digest(opened.digest, asdict(sampler))


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
    what = (asdict(data), asdict(task.sampler), ldm.digest, str(ldm.dtype), weights, asdict(Contract()))
    key = digest(VERSION, what, episodes, config.search_images, config.seed, kind)
    path = Path(config.out) / "parts" / f"fixed-{key[:16]}.json"
    path.parent.mkdir(parents=True, exist_ok=True)

    def heard(done: int, total: int) -> None:
        advance(f"search: best fixed {kind}", done, total)

    with alone(path.with_suffix(".lock"), f"searches a fixed {kind} in {config.out!r}"):
        if not path.exists():
            refs = open_images(data.source, data.train_split, data.classes, config.search_images, data.seed)
            images, tries = load_pairs(refs, data), path.with_suffix(".tries")
            found, reward = search(
                ldm, images, metrics, weights, task.sampler, episodes, config.seed, kind, heard, Tries(tries)
            )
            _replace(path, json.dumps({"actions": found.actions, "reward": reward}).encode())
            tries.unlink()
    kept = json.loads(path.read_text())
    return FixedSchedule(tuple(tuple(action) for action in kept["actions"])), float(kept["reward"])


class Runner:
    """Scores methods batch by batch; a batch that was scored before is read back."""

    def __init__(
        self,
        folder: Path,
        refs: Sequence[ImageRef],
        data: DataConfig,
        ldm: LDM,
        metrics: Metrics,
        batch_size: int,
        advance: Advance,
    ) -> None:
        self.folder, self.refs, self.data, self.ldm = folder, refs, data, ldm
        self.metrics, self.batch_size, self.advance = metrics, batch_size, advance

    def score(self, method: m.Method) -> Scores:
        """The method on all images."""
        parts = []
        for start in range(0, len(self.refs), self.batch_size):
            parts.append(self._part(method, start))
            self.advance(method.name, min(start + self.batch_size, len(self.refs)), len(self.refs))
        for number, part in enumerate(parts):
            part["decisions"][:, 0] += number * self.batch_size
        return Scores(**{name: np.concatenate([part[name] for part in parts]) for name in parts[0]})

    def _part(self, method: m.Method, start: int) -> dict[str, npt.NDArray[Any]]:
        refs = self.refs[start : start + self.batch_size]
        names, ldm = [ref.name for ref in refs], (self.ldm.digest, str(self.ldm.dtype))
        key = digest(VERSION, method.key, ldm, asdict(self.data), names, asdict(Contract()))
        path = self.folder / f"{key[:24]}.npz"
        if path.exists():
            with np.load(path, allow_pickle=False) as kept:
                return {name: kept[name] for name in kept.files}
        batch = load_pairs(refs, self.data)
        outcome, seconds = self._after(method.base, start, batch) if method.base else m.timed(method, batch)
        part = self._measure(outcome, batch, seconds)
        self.folder.mkdir(parents=True, exist_ok=True)
        staged = path.with_suffix(f".{os.getpid()}.tmp")
        with staged.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **part)
        staged.replace(path)
        return part

    def _after(self, base: m.Method, start: int, batch: Batch) -> tuple[m.Outcome, float]:
        """`base`, which is scored first and kept, projected; its seconds are the base's."""
        kept = self._part(base, start)
        images = torch.from_numpy(kept["pixels"]).permute(0, 3, 1, 2).float() / 255
        return m.Outcome(m.projected(images, batch), kept["nfe"]), float(kept["seconds"][0])

    def _measure(self, outcome: m.Outcome, batch: Batch, seconds: float) -> dict[str, npt.NDArray[Any]]:
        images = outcome.images.to(self.ldm.device)
        quality = self.metrics(images, batch.hr.to(self.ldm.device)).cpu().numpy()
        none = np.zeros((0, 3 + len(ACTIONS)), dtype=np.float32)
        return {
            "quality": quality,
            "nfe": outcome.nfe,
            "seconds": np.full(len(batch.refs), seconds),
            "pixels": (images * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy(),
            "decisions": none if outcome.decisions is None else outcome.decisions,
        }


def per_image(scores: Mapping[str, Scores], refs: Sequence[ImageRef], weights: Weights, nfe_max: int) -> pd.DataFrame:
    """One row per (method, image)."""
    frames = []
    for name, score in scores.items():
        terms = np.column_stack([score.quality, score.nfe, score.seconds])
        frame = pd.DataFrame(terms, columns=["psnr", "ssim", "lpips", "nfe", "seconds"])
        frame.insert(0, "scene", [ref.scene for ref in refs])
        frame.insert(0, "image", [ref.name for ref in refs])
        frame.insert(0, "method", name)
        frame["reward"] = compose(terms, weights, nfe_max)
        for setting, others in SETTINGS.items():
            frame[f"reward_{setting}"] = compose(terms, others, nfe_max)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def _actions(score: Scores, refs: Sequence[ImageRef]) -> pd.DataFrame:
    """The steered policy's decisions, one row each."""
    rows: Iterator[dict[str, Any]] = (
        {"image": refs[int(row[0])].name, "scene": refs[int(row[0])].scene, "decision": int(row[1]), "t": row[2]}
        | dict(zip(ACTIONS, row[3:], strict=True))
        for row in score.decisions
    )
    return pd.DataFrame(list(rows))


def _write_csv(table: pd.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, table.to_csv(index=False, float_format="%.6g").encode())


def _replace(path: Path, content: bytes) -> None:
    staged = path.with_suffix(".tmp")
    staged.write_bytes(content)
    staged.replace(path)
