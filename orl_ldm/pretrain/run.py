"""A whole pretraining run: first stage, denoiser, export as a diffusers folder."""

import copy
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers import DDIMScheduler

from orl_ldm.diffusion.schedule import schedule_of
from orl_ldm.images.resample import to_tensor
from orl_ldm.pretrain.config import DenoiserConfig, FirstStageConfig, PretrainConfig
from orl_ldm.pretrain.data import open_sources
from orl_ldm.pretrain.loop import train_stage
from orl_ldm.pretrain.stages import SCHEDULER, DenoiserLoss, FirstStageLoss, build_denoiser, build_first_stage


def pretrain(config: PretrainConfig) -> Path:
    """Train both networks (resuming where an earlier run of the same folder stopped) and export them.

    Returns the exported diffusers folder `<out>/ldm`: fp16 safetensors that `load_ldm` and diffusers both read.
    """
    folder = Path(config.out)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pretrain.json").write_text(json.dumps(asdict(config), indent=2))
    accelerator = Accelerator(mixed_precision=config.mixed_precision)
    refs, weights, held = open_sources(config)
    held_out = torch.stack([to_tensor(ref.load()) for ref in held]).to(accelerator.device)
    accelerator.print(f"{len(refs)} training images, {len(held)} held out, device {accelerator.device}")

    def train(name: str, objective: FirstStageLoss | DenoiserLoss, stage: FirstStageConfig | DenoiserConfig) -> Any:
        return train_stage(
            name, objective, (refs, weights), held_out, stage.train, folder, accelerator, config.seed, config.workers
        )

    torch.manual_seed(config.seed)
    first_stage = build_first_stage(config.first_stage).to(accelerator.device)
    first_stage = train("first-stage", FirstStageLoss(first_stage, config.first_stage, config.seed), config.first_stage)
    torch.manual_seed(config.seed + 1)
    denoiser = build_denoiser(config.denoiser, config.first_stage.latent_channels).to(accelerator.device)
    schedule = schedule_of(scheduler_config(config))
    objective = DenoiserLoss(denoiser, first_stage, schedule, config.scale, config.seed)
    denoiser = train("denoiser", objective, config.denoiser)
    if accelerator.is_main_process:
        export(denoiser, first_stage, config, folder / "ldm")
    return folder / "ldm"


def scheduler_config(config: PretrainConfig) -> dict[str, object]:
    """The diffusers scheduler configuration that belongs to a run."""
    return {**SCHEDULER, "prediction_type": config.denoiser.prediction_type}


def export(denoiser: Any, first_stage: Any, config: PretrainConfig, folder: Path) -> None:
    """Write the LDM in diffusers' layout, fp16 safetensors, in place of an older export."""
    staged = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(staged, ignore_errors=True)
    half(denoiser).save_pretrained(staged / "unet")
    half(first_stage).save_pretrained(staged / "vqvae")
    DDIMScheduler.from_config(scheduler_config(config)).save_pretrained(staged / "scheduler")
    index = {
        "_class_name": "LDMSuperResolutionPipeline",
        "scheduler": ["diffusers", "DDIMScheduler"],
        "unet": ["diffusers", "UNet2DModel"],
        "vqvae": ["diffusers", type(first_stage).__name__],
    }
    (staged / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    (staged / "training.json").write_text(json.dumps(asdict(config), indent=2) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    staged.rename(folder)


def half(network: Any) -> Any:
    """A fp16 copy on the CPU."""
    return copy.deepcopy(network).to("cpu", torch.float16)
