"""How fast images are denoised, beside a plain loop of diffusers' DDIMScheduler around the same networks.

    python benchmarks/sampling.py                          # two CPU cores
    python benchmarks/sampling.py --device cuda --batches 1,16,64,256

Both sample by DDIM with eta 0, decode, and give images (diffusers' LDMSuperResolutionPipeline is such a loop, but takes
LDMs whose latents have three channels only); they take turns, and the fastest turn counts. The last column is a
collector's: a steered episode of a broad policy, observed and scored (PSNR, SSIM, LPIPS).
"""

import time
from collections.abc import Callable

import torch
import typer
from diffusers import DDIMScheduler
from torch import Tensor

from orl_ldm.collect.collector import behavior
from orl_ldm.collect.config import CollectConfig
from orl_ldm.diffusion.config import SamplerConfig
from orl_ldm.diffusion.ldm import LDM, load_ldm
from orl_ldm.diffusion.model_files import model_files
from orl_ldm.diffusion.sampler import ddim_controller, sample
from orl_ldm.env.rollout import roll_out
from orl_ldm.images.config import DataConfig
from orl_ldm.images.pairs import Batch, load_pairs
from orl_ldm.images.sources import open_images
from orl_ldm.metrics import Metrics

IMAGES = 16  # different ones; larger batches repeat them


def fastest(turns: int, *calls: Callable[[], object]) -> list[float]:
    """Seconds of each call, its fastest of `turns` after one to warm up."""
    best = [float("inf")] * len(calls)
    for turn in range(turns + 1):
        for i, call in enumerate(calls):
            started = time.perf_counter()
            call()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn:
                best[i] = min(best[i], time.perf_counter() - started)
    return best


def repeated(images: Batch, count: int) -> Batch:
    """As many images as are wanted."""
    rows = torch.arange(count) % len(images.refs)
    return Batch(images.hr[rows], images.lr[rows], tuple(images.refs[int(row)] for row in rows))


@torch.no_grad()
def loop(ldm: LDM, scheduler: DDIMScheduler, lr: Tensor, steps: int) -> Tensor:
    """DDIM as diffusers' pipelines do it: images (B, 3, H, W)."""
    scheduler.set_timesteps(steps)
    condition = lr.to(ldm.device, ldm.dtype) * 2 - 1
    generator = torch.Generator().manual_seed(0)
    shape = (len(lr), ldm.latent_channels, *lr.shape[-2:])
    x = torch.randn(shape, generator=generator).to(condition)
    for t in scheduler.timesteps.to(ldm.device):
        prediction = ldm.unet(torch.cat([x, condition], dim=1), t).sample
        x = scheduler.step(prediction, t, x, eta=0.0).prev_sample
    return ((ldm.first_stage.decode(x).sample.float() + 1) / 2).clamp(0, 1).cpu()


def calls(ldm: LDM, scheduler: DDIMScheduler, batch: Batch, steps: int) -> list[Callable[[], object]]:
    """Ours, diffusers', and the collector's work on a batch."""
    ids, numbers = [ref.image_id for ref in batch.refs], list(range(len(batch.refs)))
    control, config = ddim_controller(ldm.schedule.grid(steps), 0.0), SamplerConfig(nfe_max=steps, t_floor=0.0)
    hr = batch.hr.to(ldm.device)
    metrics, broad = Metrics(device=ldm.device), behavior(CollectConfig())[0]

    def collected() -> object:
        rollout = roll_out(ldm, broad, batch.lr, ids, numbers, SamplerConfig(), 0)
        return metrics(rollout.images, hr).cpu()

    return [
        lambda: sample(ldm, batch.lr, ids, numbers, control, config, 0, from_noise=True).images.cpu(),
        lambda: loop(ldm, scheduler, batch.lr, steps),
        collected,
    ]


def main(
    ldm: str = "embedded",
    device: str = "cpu",
    dtype: str = "float32",
    size: int = 128,
    steps: int = 20,
    batches: str = "1,16",
    turns: int = 3,
    threads: int = 2,
) -> None:
    """Print a table."""
    torch.set_num_threads(threads)
    model = load_ldm(ldm, device, getattr(torch, dtype))
    scheduler = DDIMScheduler.from_config(model_files(ldm).scheduler)
    images = load_pairs(open_images("synthetic", "train", count=IMAGES), DataConfig(size=size))
    name = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {threads} threads"
    print(f"\n{ldm}, {dtype}, {name}, images of {size} x {size}, {steps} steps; per second\n")
    print("| batch | images, ours | diffusers | ours / diffusers | collected episodes |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for count in map(int, batches.split(",")):
        ours, theirs, collected = fastest(turns, *calls(model, scheduler, repeated(images, count), steps))
        print(
            f"| {count} | {count / ours:.1f} | {count / theirs:.1f} | {theirs / ours:.2f} | {count / collected:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    typer.run(main)
