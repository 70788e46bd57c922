"""The model card of a trained LDM, made from what is known of its training."""

import csv
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from jinja2 import Environment, StrictUndefined

from orl_ldm.diffusion.ldm import LDM
from orl_ldm.files import write_text
from orl_ldm.pretrain.config import PretrainConfig

TEMPLATE = Path(__file__).with_name("card.md.j2")


def write_card(
    folder: Path,
    config: PretrainConfig,
    ldm: LDM,
    scheduler: Mapping[str, Any],
    counts: Mapping[str, int],
    hours: Mapping[str, float],
    accelerator: Accelerator,
) -> None:
    """Write `<folder>/ldm/README.md`: parts, data, training, hardware and the last validation's scores.

    `counts` are the images of each source; `hours` those of each stage that was trained, by its name in the logs.
    """
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    trained = {"first-stage": config.first_stage.train, "denoiser": config.denoiser.train}
    scores: dict[str, float] = {}
    for name in hours:
        scores |= last_scores(folder / f"{name}-validation.csv")
    text = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        config=config,
        first_stage={
            "kind": type(ldm.first_stage).__name__,
            "latent_channels": ldm.latent_channels,
            "millions": _millions(ldm.first_stage),
        },
        denoiser={
            "kind": type(ldm.unet).__name__,
            "channels": "-".join(str(width) for width in ldm.unet.config.block_out_channels),
            "millions": _millions(ldm.unet),
        },
        scheduler=scheduler,
        megabytes=round(sum(path.stat().st_size for path in (folder / "ldm").rglob("*.safetensors")) / 1e6, 1),
        counts=counts,
        held_out=config.holdout,
        stages=[(name, trained[name], spent) for name, spent in hours.items()],
        hardware=hardware(accelerator),
        scores=scores,
    )
    write_text(folder / "ldm" / "README.md", text)


def last_scores(log: Path) -> dict[str, float]:
    """The last row of a validation table, by readable names, without what is not a score."""
    with log.open(newline="", encoding="utf-8") as file:
        row = list(csv.DictReader(file))[-1]
    return {key.replace("_", " "): float(row[key]) for key in row if key not in ("step", "hours", "loss")}


def hardware(accelerator: Accelerator) -> str:
    """The device in words."""
    if accelerator.device.type == "cuda":
        return f"{accelerator.num_processes} x {torch.cuda.get_device_name(accelerator.device)}"
    return f"CPU ({platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads used), no GPU"


def _millions(network: Any) -> str:
    return f"{sum(parameter.numel() for parameter in network.parameters()) / 1e6:.2f}"
