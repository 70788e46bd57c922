"""One training loop for both networks: EMA, gradient accumulation, several processes, exact resume, interruptible."""

import json
import math
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from diffusers.optimization import get_cosine_schedule_with_warmup
from diffusers.training_utils import EMAModel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from orl_ldm.errors import UserError
from orl_ldm.files import write_text, writing
from orl_ldm.interrupt import Interrupt
from orl_ldm.pretrain.config import StageConfig
from orl_ldm.pretrain.data import Crops, Images, loaded
from orl_ldm.pretrain.record import Run, append, keep_until
from orl_ldm.pretrain.stages import Validation


class Objective(Protocol):
    """A loss module around the network that it trains (one forward a step, so that it can be distributed)."""

    network: nn.Module

    def __call__(self, hr: Tensor, lr: Tensor, noise: Tensor, items: Tensor) -> Tensor: ...

    def validate(self, hr: Tensor) -> Validation: ...


def train_stage(
    name: str,
    objective: Objective,
    images: Images,
    held_out: Tensor,
    config: StageConfig,
    latent: tuple[int, int, int],
    run: Run,
) -> float:
    """Train `objective.network` until config.steps optimiser steps are done; leaves its EMA weights in it.

    It learns from crops whose latents have the shape `latent` (C, h, w).
    Everything random is a function of (seed, item of the stream of crops), and the checkpoint holds model, EMA,
    optimiser and schedule, so a run that was killed and resumed follows the same loss curve. Writes `<name>.csv`,
    `<name>-validation.csv`, `previews/<name>-<step>.png` and `<name>-checkpoint/`. Returns the hours that it took, over
    all runs. A signal ends it after the step that it is in, with a checkpoint.
    """
    accelerator, folder = run.accelerator, run.folder
    parts = config.gradient_accumulation * accelerator.num_processes
    if config.batch_size % parts:
        raise UserError(
            f"{name}: batch_size {config.batch_size} does not split over {accelerator.num_processes} processes x "
            f"{config.gradient_accumulation} gradient_accumulation"
        )
    model = objective.network.requires_grad_(True).train().to(memory_format=torch.channels_last)
    ema = EMAModel(model.parameters(), decay=config.ema_decay, use_ema_warmup=True, power=0.75, foreach=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    schedule = get_cosine_schedule_with_warmup(optimizer, config.warmup_steps, config.steps)
    loss_of, optimizer = accelerator.prepare(objective, optimizer)
    checkpoint = Checkpoint(folder / f"{name}-checkpoint", accelerator, model, ema, optimizer, schedule)
    start, hours = checkpoint.load()
    ema.to(accelerator.device)  # now, as what is loaded is not there
    for log in (folder / f"{name}.csv", folder / f"{name}-validation.csv"):
        if accelerator.is_main_process:
            keep_until(log, start)
    unfinished = start < config.steps
    length = config.steps * config.batch_size
    crops = Crops(images, config.crop, latent, run.seed, length, run.workers if unfinished else 0, run.degradation)
    mine = range(start * config.batch_size + accelerator.process_index, len(crops), accelerator.num_processes)
    pinned = accelerator.device.type == "cuda"
    size = config.batch_size // parts
    batches = loaded(crops, batch_size=size, sampler=mine, num_workers=run.workers, pin_memory=pinned)
    clock = Clock(hours)
    saved = validated = clock.hours()
    with (
        Interrupt() as interrupt,
        _progress(disable=not accelerator.is_main_process or not unfinished) as progress,
    ):
        task = progress.add_task(name, total=config.steps, completed=start, loss=float("nan"))
        for step in range(start, config.steps):
            loss = torch.zeros((), device=accelerator.device)
            for part in range(config.gradient_accumulation):
                *batch, items = next(batches)
                pixels, lr, noise = (x.to(accelerator.device, torch.float32, non_blocking=True) for x in batch)
                last = part == config.gradient_accumulation - 1
                with nullcontext() if last else accelerator.no_sync(loss_of):
                    share = loss_of(pixels / 255, lr, noise, items) / config.gradient_accumulation
                    accelerator.backward(share)
                loss += share.detach()
            flag = torch.tensor(float(interrupt.received is not None), device=accelerator.device)
            total, interrupted = accelerator.reduce(torch.stack([loss, flag]), "mean").tolist()  # all stop together
            if not math.isfinite(total):
                raise UserError(
                    f"{name}: the loss is not finite at step {step}; the last checkpoint is kept: lower the learning "
                    "rate, or set mixed_precision to no"
                )
            accelerator.clip_grad_norm_(model.parameters(), config.max_grad_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            ema.step(model.parameters())
            progress.update(task, advance=1, loss=total)
            done, now = step + 1, clock.hours()
            ends = done == config.steps
            if accelerator.is_main_process:
                append(folder / f"{name}.csv", {"step": done, "loss": total})
                if ends or now - validated > config.validate_minutes / 60:
                    with _weights_of(ema, model):
                        run.validate(name, objective, held_out, done, now, total, progress.console)
                    validated = now
                if ends or interrupted or now - saved > config.checkpoint_minutes / 60:
                    checkpoint.save(done, now)
                    saved = now
            if interrupted and not ends:
                break
    interrupt.act()
    ema.copy_to(model.parameters())
    model.requires_grad_(False).eval()
    return clock.hours() if unfinished else hours


@contextmanager
def _weights_of(ema: EMAModel, model: nn.Module) -> Iterator[None]:
    """Within the block the model has its EMA weights and does not train."""
    ema.store(model.parameters())
    ema.copy_to(model.parameters())
    model.eval()
    with torch.no_grad():
        yield
    model.train()
    ema.restore(model.parameters())


class Clock:
    """Hours of training, those of earlier runs included."""

    def __init__(self, before: float) -> None:
        self._start = time.monotonic() - 3600 * before

    def hours(self) -> float:
        """Hours until now."""
        return (time.monotonic() - self._start) / 3600


class Checkpoint:
    """The whole state of one stage in a folder; while it is replaced, the last one is still there beside it."""

    def __init__(
        self, folder: Path, accelerator: Accelerator, model: nn.Module, ema: Any, optimizer: Any, schedule: Any
    ):
        self.folder, self.accelerator = folder, accelerator
        self.last = folder.with_name(folder.name + ".last")
        self.parts = {"model": model, "ema": ema, "optimizer": optimizer, "schedule": schedule}
        if accelerator.scaler is not None:  # fp16
            self.parts["scaler"] = accelerator.scaler

    def load(self) -> tuple[int, float]:
        """Restore the last checkpoint, if there is one; returns the number of steps done and the hours they took."""
        folder = next((folder for folder in (self.folder, self.last) if (folder / "step.json").exists()), None)
        if folder is None:
            return 0, 0.0
        for name, part in self.parts.items():
            part.load_state_dict(torch.load(folder / f"{name}.pt", map_location="cpu", weights_only=True))
        state = json.loads((folder / "step.json").read_text(encoding="utf-8"))
        return int(state["step"]), float(state["hours"])

    def save(self, step: int, hours: float) -> None:
        """Replace the last checkpoint by this one. A kill at any moment leaves one of them whole, and it is found."""
        staged = self.folder.with_name(self.folder.name + ".tmp")
        with writing(self.folder, RuntimeError):  # torch.save's error when a disk is full
            shutil.rmtree(staged, ignore_errors=True)
            staged.mkdir(parents=True)
            for name, part in self.parts.items():
                torch.save(part.state_dict(), staged / f"{name}.pt")
            write_text(staged / "step.json", json.dumps({"step": step, "hours": hours}))
            if self.folder.exists():
                shutil.rmtree(self.last, ignore_errors=True)
                self.folder.rename(self.last)
            staged.rename(self.folder)
            shutil.rmtree(self.last, ignore_errors=True)


def _progress(disable: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4f}"),
        TimeRemainingColumn(),
        disable=disable,
    )
