"""A whole pretraining run: first stage, denoiser, export as a diffusers folder."""

import copy
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers import DDIMScheduler
from torch import Tensor

from orl_ldm.diffusion.ldm import LDM, load_ldm, make_ldm
from orl_ldm.diffusion.model_files import model_files
from orl_ldm.errors import UserError
from orl_ldm.files import write_text, writing
from orl_ldm.images.pairs import centre_crop
from orl_ldm.images.sources import ImageRef
from orl_ldm.metrics import lpips_weights
from orl_ldm.pretrain.card import write_card
from orl_ldm.pretrain.config import PretrainConfig, StageConfig
from orl_ldm.pretrain.data import open_sources
from orl_ldm.pretrain.loop import Objective, train_stage
from orl_ldm.pretrain.record import Run
from orl_ldm.pretrain.stages import SCHEDULER, DenoiserLoss, FirstStageLoss, build_denoiser, build_first_stage

#: Settings that may change between the runs of one folder without making it another training.
FREE = ("checkpoint_minutes", "validate_minutes", "gradient_accumulation", "previews", "workers", "compile")


def pretrain(config: PretrainConfig) -> Path:
    """Train both networks (resuming where an earlier run of the same folder stopped) and export them.

    Returns the exported diffusers folder `<out>/ldm`: fp16 safetensors that `load_ldm` and diffusers both read, with a
    model card. Works alike on CPU, one GPU, and several processes (`accelerate launch -m orl_ldm.cli.main pretrain`).

    Raises:
        UserError: the folder holds another training, or an image source or a setting does not fit.
    """
    folder = Path(config.out)
    accelerator = Accelerator(mixed_precision=config.mixed_precision)
    ldm, scheduler = untrained(config)
    ldm.unet.to(accelerator.device)
    ldm.first_stage.to(accelerator.device)
    require_crops(config, ldm)
    lpips_weights()  # validation needs them, when hours of training may not be saved yet
    images = open_sources(config)
    held_out = held_out_images(images.held_out, ldm).to(accelerator.device)
    if accelerator.is_main_process:
        claim(folder, config)
    accelerator.wait_for_everyone()
    accelerator.print(
        f"{len(images.refs)} training images, {len(held_out)} held out, {accelerator.num_processes} processes, "
        f"device {accelerator.device}"
    )
    run = Run(folder, accelerator, config.seed, config.workers, config.previews, config.degradation)
    objectives: list[tuple[str, Objective, StageConfig]] = [
        (
            "first-stage",
            FirstStageLoss(ldm.first_stage, config.first_stage.latent_noise),
            config.first_stage.train,
        ),
        (
            "denoiser",
            DenoiserLoss(ldm, config.seed, config.validation_steps, config.degradation, config.compile),
            config.denoiser.train,
        ),
    ]
    hours = {
        name: train_stage(name, objective, images, held_out, stage, ldm.latent_shape(stage.crop, stage.crop), run)
        for name, objective, stage in objectives
        if stage.steps
    }
    if accelerator.is_main_process:
        export(ldm, scheduler, config, folder / "ldm")
        write_card(folder, config, ldm, scheduler, images.counts, hours, accelerator)
    accelerator.print(f"LDM in {folder / 'ldm'}; use it with --set ldm.id={folder / 'ldm'}")
    accelerator.end_training()
    return folder / "ldm"


def untrained(config: PretrainConfig) -> tuple[LDM, dict[str, Any]]:
    """The LDM that training begins with, and its scheduler's configuration."""
    if config.start:
        ldm, scheduler = load_ldm(config.start), model_files(config.start).scheduler
        ldm.require(ldm.scale * ldm.size_multiple, config.scale)
        if config.denoiser.anew:
            scheduler |= {"prediction_type": config.denoiser.prediction_type}
            torch.manual_seed(config.seed + 1)
            denoiser = build_denoiser(config.denoiser, ldm.latent_channels)
            ldm = make_ldm(denoiser, ldm.first_stage, scheduler, config.name, "")
    else:
        scheduler = {**SCHEDULER, "prediction_type": config.denoiser.prediction_type}
        torch.manual_seed(config.seed)
        first_stage = build_first_stage(config.first_stage)
        torch.manual_seed(config.seed + 1)
        denoiser = build_denoiser(config.denoiser, config.first_stage.latent_channels)
        ldm = make_ldm(denoiser, first_stage, scheduler, config.name, "")
    if config.first_stage.train.steps and ldm.latent_scale != 1:
        raise UserError(f"the first stage of {config.start!r} rescales its latents: set first_stage.train.steps to 0")
    return replace(ldm, ldm_id=config.name), scheduler


def require_crops(config: PretrainConfig, ldm: LDM) -> None:
    """Raises UserError for crops that a network could not take, before any of them is trained."""
    stages = {"first_stage": (config.first_stage.train, 1), "denoiser": (config.denoiser.train, ldm.size_multiple)}
    for name, (stage, multiple) in stages.items():
        if stage.steps and stage.crop % (ldm.scale * multiple):
            raise UserError(f"{name}.train.crop is {stage.crop}; it has to be a multiple of {ldm.scale * multiple}")


def held_out_images(refs: Sequence[ImageRef], ldm: LDM) -> Tensor:
    """(N, 3, S, S) centre crops, S the largest size that all of them have and the LDM takes."""
    multiple = ldm.scale * ldm.size_multiple
    size = min(min(ref.load().shape[:2]) for ref in refs) // multiple * multiple
    if not size:
        raise UserError(f"a held-out image is smaller than {multiple} pixels, the least that this LDM takes")
    return torch.stack([centre_crop(ref, size) for ref in refs])


def claim(folder: Path, config: PretrainConfig) -> None:
    """Write down what is trained in this folder. Raises UserError when it is already something else."""
    record = folder / "pretrain.json"
    table = {**asdict(config), "start_weights": model_files(config.start).digest if config.start else ""}
    if record.exists():
        before, now = _flat(json.loads(record.read_text(encoding="utf-8"))), _flat(json.loads(json.dumps(table)))
        before.setdefault("start_weights", now["start_weights"])  # older records do not say
        before["sources"] = [{"image_column": ""} | source for source in before.get("sources", [])]  # nor this
        changed = [key for key in before | now if before.get(key) != now.get(key) and key.split(".")[-1] not in FREE]
        if changed:
            raise UserError(
                f"{str(folder)!r} holds a training with other settings ({', '.join(changed)}): choose another `out`, "
                "or remove that folder"
            )
    write_text(record, json.dumps(table, indent=2) + "\n")


def _flat(table: Any, key: str = "") -> dict[str, Any]:
    if not isinstance(table, dict):
        return {key: table}
    flat: dict[str, Any] = {}
    for name, value in table.items():
        flat |= _flat(value, f"{key}.{name}" if key else name)
    return flat


def export(ldm: LDM, scheduler: dict[str, Any], config: PretrainConfig, folder: Path) -> None:
    """Write the LDM in diffusers' layout, fp16 safetensors, in place of an older export."""
    staged = folder.with_name(folder.name + ".tmp")
    index = {
        "_class_name": "LDMSuperResolutionPipeline",
        "scheduler": ["diffusers", "DDIMScheduler"],
        "unet": ["diffusers", "UNet2DModel"],
        "vqvae": ["diffusers", type(ldm.first_stage).__name__],
    }
    with writing(folder):
        shutil.rmtree(staged, ignore_errors=True)
        half(ldm.unet).save_pretrained(staged / "unet")
        half(ldm.first_stage).save_pretrained(staged / "vqvae")
        DDIMScheduler.from_config(scheduler).save_pretrained(staged / "scheduler")
        write_text(staged / "model_index.json", json.dumps(index, indent=2) + "\n")
        write_text(staged / "training.json", json.dumps(asdict(config), indent=2) + "\n")
        shutil.rmtree(folder, ignore_errors=True)
        staged.rename(folder)


def half(network: Any) -> Any:
    """A fp16 copy on the CPU, which does not say where its start was loaded from."""
    copied = copy.deepcopy(network).to("cpu", torch.float16)
    copied.register_to_config(_name_or_path="")
    return copied
