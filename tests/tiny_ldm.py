"""An LDM that is real and tiny."""

import json
import shutil
from pathlib import Path

import torch
from diffusers import DDIMScheduler

from orl_ldm.pretrain.config import DenoiserConfig, FirstStageConfig
from orl_ldm.pretrain.stages import SCHEDULER, build_denoiser, build_first_stage


def tiny_ldm_folder(folder: Path, prediction_type: str = "v_prediction", set_alpha_to_one: bool = True) -> Path:
    """An untrained LDM of a few thousand parameters in diffusers' layout."""
    torch.manual_seed(0)
    first = build_first_stage(
        FirstStageConfig(latent_channels=4, channels=8, encoder_layers=(0, 1, 1), decoder_layers=(0, 1, 1))
    )
    denoiser = build_denoiser(DenoiserConfig(channels=(8, 16), layers_per_block=1), 4)
    first.save_pretrained(folder / "vqvae")
    denoiser.save_pretrained(folder / "unet")
    config = {**SCHEDULER, "prediction_type": prediction_type, "set_alpha_to_one": set_alpha_to_one}
    DDIMScheduler.from_config(config).save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "LDMSuperResolutionPipeline",
        "scheduler": ["diffusers", "DDIMScheduler"],
        "unet": ["diffusers", "UNet2DModel"],
        "vqvae": ["diffusers", "AutoencoderDC"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def ldm_copy(ldm_folder: Path, place: Path, part: str = "unet", **settings: object) -> str:
    """A copy of an LDM with other settings of one part; its id."""
    shutil.copytree(ldm_folder, place)
    if settings:
        path = place / part / ("scheduler_config.json" if part == "scheduler" else "config.json")
        path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return str(place)
