"""One training loop for both networks: gradient accumulation, EMA, exact resume, interruptible."""

import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from diffusers.optimization import get_cosine_schedule_with_warmup
from diffusers.training_utils import EMAModel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.utils.data import DataLoader

from orl_ldm.images.sources import ImageRef
from orl_ldm.pretrain.config import StageConfig
from orl_ldm.pretrain.data import Crops


class Objective(Protocol):
    """A loss module around the network that it trains (one forward a step, so that it can be distributed)."""

    network: nn.Module

    def __call__(self, hr: Tensor, step: int) -> Tensor: ...

    def validate(self, hr: Tensor) -> dict[str, float]: ...


def train_stage(
    name: str,
    objective: Objective,
    images: tuple[Sequence[ImageRef], Sequence[float]],
    held_out: Tensor,
    config: StageConfig,
    folder: Path,
    accelerator: Accelerator,
    seed: int,
    workers: int,
) -> nn.Module:
    """Train `objective.network` on crops until config.steps optimiser steps are done; returns it with its EMA weights.

    Everything random is a function of (seed, step), and the checkpoint holds model, EMA, optimiser and schedule, so a
    run that was killed and resumed follows the same loss curve. Writes `<name>.csv` and `<name>-checkpoint/`.
    """
    model = objective.network
    ema = EMAModel(model.parameters(), decay=config.ema_decay, use_ema_warmup=True, power=0.75)
    ema.to(accelerator.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    schedule = get_cosine_schedule_with_warmup(optimizer, config.warmup_steps, config.steps)
    loss_of, optimizer = accelerator.prepare(objective, optimizer)
    checkpoint = Checkpoint(folder / f"{name}-checkpoint", accelerator, model, ema, optimizer, schedule)
    start = checkpoint.load()
    for log in (folder / f"{name}.csv", folder / f"{name}-validation.csv"):
        _keep_until(log, start)
    micro = config.gradient_accumulation
    per_step = config.batch_size * accelerator.num_processes * micro
    crops = Crops(*images, config.crop, seed, config.steps * per_step)
    order = range(start * per_step + accelerator.process_index, config.steps * per_step, accelerator.num_processes)
    batches = iter(DataLoader(crops, config.batch_size, sampler=order, num_workers=workers))
    saved = time.monotonic()
    with _progress(disable=not accelerator.is_main_process) as progress:
        task = progress.add_task(name, total=config.steps, completed=start, loss=float("nan"))
        for step in range(start, config.steps):
            total = 0.0
            for part in range(micro):
                batch = next(batches).to(accelerator.device)
                loss = loss_of(batch, step * micro + part) / micro
                accelerator.backward(loss)
                total += float(loss.detach())
            if not torch.isfinite(torch.tensor(total)):
                raise FloatingPointError(f"{name}: the loss is not finite at step {step}; the last checkpoint is kept")
            accelerator.clip_grad_norm_(model.parameters(), config.max_grad_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            ema.step(model.parameters())
            progress.update(task, advance=1, loss=total)
            done = step + 1
            if accelerator.is_main_process:
                _append(folder / f"{name}.csv", {"step": done, "loss": total})
            if done % config.validate_every == 0 or done == config.steps:
                ema.store(model.parameters())
                ema.copy_to(model.parameters())
                scores = objective.validate(held_out)
                ema.restore(model.parameters())
                if accelerator.is_main_process:
                    _append(folder / f"{name}-validation.csv", {"step": done, **scores})
                progress.console.print(f"{name} step {done}: " + ", ".join(f"{k} {v:.4f}" for k, v in scores.items()))
            if time.monotonic() - saved > 60 * config.checkpoint_minutes or done == config.steps:
                checkpoint.save(done)
                saved = time.monotonic()
    ema.copy_to(model.parameters())
    return model.eval()


class Checkpoint:
    """The whole state of one stage in a folder that is replaced in one rename."""

    def __init__(
        self, folder: Path, accelerator: Accelerator, model: nn.Module, ema: Any, optimizer: Any, schedule: Any
    ):
        self.folder, self.accelerator = folder, accelerator
        self.parts = {"model": model, "ema": ema, "optimizer": optimizer, "schedule": schedule}

    def load(self) -> int:
        """Restore the last checkpoint, if there is one; returns the number of steps done."""
        if not (self.folder / "step.json").exists():
            return 0
        for name, part in self.parts.items():
            part.load_state_dict(torch.load(self.folder / f"{name}.pt", map_location="cpu", weights_only=True))
        return int(json.loads((self.folder / "step.json").read_text())["step"])

    def save(self, step: int) -> None:
        if not self.accelerator.is_main_process:
            return
        staged = self.folder.with_name(self.folder.name + ".tmp")
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir(parents=True)
        for name, part in self.parts.items():
            torch.save(part.state_dict(), staged / f"{name}.pt")
        (staged / "step.json").write_text(json.dumps({"step": step}))
        shutil.rmtree(self.folder, ignore_errors=True)
        staged.rename(self.folder)


def _keep_until(path: Path, step: int) -> None:
    """Drop the rows after `step`: they are about to be written again."""
    if path.exists():
        head, *rows = path.read_text().splitlines(keepends=True)
        path.write_text(head + "".join(row for row in rows if int(row.split(",")[0]) <= step))


def _append(path: Path, row: dict[str, float]) -> None:
    new = not path.exists()
    with path.open("a") as file:
        if new:
            file.write(",".join(row) + "\n")
        file.write(",".join(f"{value:.6g}" for value in row.values()) + "\n")


def _progress(disable: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4f}"),
        TimeRemainingColumn(),
        disable=disable,
    )
