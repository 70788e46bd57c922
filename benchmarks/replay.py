"""True replay of policies on a pipeline's test images, kept checkpoints among them. Prints Markdown.

python benchmarks/replay.py resisc45-local runs/resisc45-local/train/checkpoints/epoch-00040 --prefer balanced
"""

from pathlib import Path
from typing import Annotated

import typer

from orl_ldm.diffusion.ldm import open_ldm
from orl_ldm.evaluate.replay import replay
from orl_ldm.images.sources import open_images
from orl_ldm.pipeline import load_pipeline
from orl_ldm.reward import preference


def main(
    pipeline: str,
    policies: Annotated[list[Path], typer.Argument(help="Folders with a policy.json.")],
    prefer: Annotated[
        str, typer.Option(help="The policies' preference, and the reward that they are compared by.")
    ] = "balanced",
) -> None:
    """Mean scores of each policy's mean action; results are kept in runs/benchmarks/replay."""
    read = load_pipeline(pipeline, [])
    data, config = read.data, read.evaluate
    refs = open_images(data.source, data.test_split, data.classes, config.images, data.seed)
    scores = replay(
        {str(folder): folder for folder in policies},
        refs,
        data,
        read.sampler,
        open_ldm(read.ldm),
        preference(prefer),
        Path("runs/benchmarks/replay"),
        config.seed,
        lambda what, done, total: None,
    )
    print("| policy | PSNR (dB) | SSIM | LPIPS | NFE | reward |\n| --- | ---: | ---: | ---: | ---: | ---: |")
    means = scores.groupby("method", sort=False)[["psnr", "ssim", "lpips", "nfe", "reward"]].mean()
    for name, psnr, ssim, lpips, nfe, reward in means.itertuples():
        print(f"| {name} | {psnr:.2f} | {ssim:.3f} | {lpips:.3f} | {nfe:.1f} | {reward:.4f} |")


if __name__ == "__main__":
    typer.run(main)
