"""Which sizes of the two networks are worth their milliseconds: each trained for the same few steps.

    python benchmarks/architectures.py first-stage --steps 400
    python benchmarks/architectures.py denoiser --steps 400

Images, crops and held-out images are those of `pipelines/pretrain.toml` (or --pipeline); denoisers are trained on the
latents of the embedded LDM. Runs lie in `runs/benchmarks/architectures` and go on where they stopped. Prints Markdown.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from accelerate import Accelerator
from ldm import milliseconds

from orl_ldm.config import build, read_toml
from orl_ldm.diffusion.ldm import LDM, encode, load_ldm
from orl_ldm.pretrain.card import last_scores
from orl_ldm.pretrain.config import DenoiserConfig, FirstStageConfig, PretrainConfig, StageConfig
from orl_ldm.pretrain.data import Images, open_sources
from orl_ldm.pretrain.loop import train_stage
from orl_ldm.pretrain.record import Run
from orl_ldm.pretrain.run import held_out_images
from orl_ldm.pretrain.stages import DenoiserLoss, FirstStageLoss, build_denoiser, build_first_stage

FIRST_STAGES = {
    "8 latent channels": FirstStageConfig(latent_channels=8),
    "16 latent channels (embedded)": FirstStageConfig(),
    "32 latent channels": FirstStageConfig(latent_channels=32),
    "16, half as wide": FirstStageConfig(channels=16),
    "16, half as deep": FirstStageConfig(encoder_layers=(0, 1, 1), decoder_layers=(0, 1, 1)),
}
DENOISERS = {
    "64-96-128 x 2 (embedded)": DenoiserConfig(),
    "64-96-128 x 1": DenoiserConfig(layers_per_block=1),
    "48-96-160 x 2": DenoiserConfig(channels=(48, 96, 160)),
    "80-96 x 2": DenoiserConfig(channels=(80, 96)),
    "64-64-64 x 3": DenoiserConfig(channels=(64, 64, 64), layers_per_block=3),
    "96-128-160 x 1": DenoiserConfig(channels=(96, 128, 160), layers_per_block=1),
}
SIDE = 64  # LR pixels of the image that is timed
app = typer.Typer()
Pipeline = Annotated[str, typer.Option(help="The pretraining file whose images are used.")]


class Bench:
    """The images, and where the runs lie."""

    def __init__(self, pipeline: str, steps: int, batch_size: int, crop: int, threads: int) -> None:
        torch.set_num_threads(threads)
        self.config = build(PretrainConfig, read_toml(Path(pipeline)), pipeline)
        self.images: Images = open_sources(self.config)
        self.embedded: LDM = load_ldm("embedded")
        self.held_out = held_out_images(self.images.held_out[:16], self.embedded)
        self.stage = StageConfig(steps=steps, batch_size=batch_size, crop=crop, validate_minutes=1e9)

    def train(self, title: str, objective: Any, channels: int, learning_rate: float) -> dict[str, float]:
        """The scores after `steps` steps."""
        folder = Path("runs/benchmarks/architectures") / title.replace(" ", "-")
        folder.mkdir(parents=True, exist_ok=True)
        run = Run(folder, Accelerator(mixed_precision=self.config.mixed_precision), self.config.seed, 0, 2)
        stage = replace(self.stage, learning_rate=learning_rate)
        latent = (channels, stage.crop // self.embedded.scale, stage.crop // self.embedded.scale)
        train_stage("network", objective, self.images, self.held_out, stage, latent, run)
        return last_scores(folder / "network-validation.csv")


@app.command()
def first_stage(
    pipeline: Pipeline = "pipelines/pretrain.toml", steps: int = 400, batch_size: int = 16, threads: int = 2
) -> None:
    """Autoencoders: the ceiling against the milliseconds of encoding and decoding."""
    bench = Bench(pipeline, steps, batch_size, 64, threads)
    rows = [
        "| first stage | M parameters | encode (ms) | decode (ms) | ceiling (dB) |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    hr = torch.rand(1, 3, 4 * SIDE, 4 * SIDE)
    for title, config in FIRST_STAGES.items():
        torch.manual_seed(0)
        network = build_first_stage(config)
        scores = bench.train(
            f"first-stage {title}", FirstStageLoss(network, config.latent_noise), config.latent_channels, 2e-3
        )
        with torch.no_grad():
            latent = encode(network, hr)
            times = [milliseconds(partial(encode, network, hr)), milliseconds(partial(network.decode, latent))]
        rows.append(
            f"| {title} | {millions(network)} | {times[0]:.1f} | {times[1]:.1f} | {scores['ceiling psnr']:.2f} |"
        )
    print("\n".join(["", *rows]))


@app.command()
def denoiser(
    pipeline: Pipeline = "pipelines/pretrain.toml", steps: int = 400, batch_size: int = 16, threads: int = 2
) -> None:
    """Denoisers: held-out loss and images against the milliseconds of one call."""
    bench = Bench(pipeline, steps, batch_size, 96, threads)
    rows = [
        "| denoiser | M parameters | one NFE (ms) | held-out loss | one call - bicubic (dB) |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for title, config in DENOISERS.items():
        torch.manual_seed(0)
        network = build_denoiser(config, bench.embedded.latent_channels)
        ldm = replace(bench.embedded, unet=network)
        scores = bench.train(f"denoiser {title}", DenoiserLoss(ldm, 0, 1), ldm.latent_channels, 1e-3)
        x, lr, t = torch.randn(1, 16, SIDE, SIDE), torch.rand(1, 3, SIDE, SIDE), torch.tensor([500.0])
        cost = milliseconds(partial(ldm.denoise, x, t, lr))
        gain = scores["one call psnr"] - scores["bicubic psnr"]
        rows.append(f"| {title} | {millions(network)} | {cost:.1f} | {scores['held out loss']:.4f} | {gain:+.2f} |")
    print("\n".join(["", *rows]))


def millions(network: Any) -> str:
    """The number of parameters."""
    return f"{sum(parameter.numel() for parameter in network.parameters()) / 1e6:.2f}"


if __name__ == "__main__":
    app()
