"""What several training seeds reach together, against the controls of an evaluation under the same preference.

    for setting in paper balanced perceptual; do
      orl-ldm ablate resisc45-local --rounds 2 --seeds 5 --only everything --prefer $setting
      orl-ldm evaluate resisc45-local --prefer $setting --set train.out=runs/resisc45-local/ablation/everything/seed-0 \
        --set evaluate.out=runs/resisc45-local/evaluate-$setting
      python benchmarks/seeds.py runs/resisc45-local/evaluate-$setting \
        runs/resisc45-local/ablation/per_image-$setting.csv
    done

Every image's scores are averaged over the seeds; intervals are 95 % paired bootstraps over images. Prints Markdown.
"""

from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from orl_ldm.report.cells import Cell, Row, Table
from orl_ldm.report.inputs import read_evaluation
from orl_ldm.report.statistics import changes, columns, means_by_method, paired_intervals, text, title

SHOWN = [metric for metric in columns() if metric.name != "seconds"]
STEERED = "steered, mean of seeds"
app = typer.Typer()


@app.command()
def main(
    folder: Annotated[Path, typer.Argument(help="An evaluation's folder.")],
    scores: Annotated[Path, typer.Argument(help="per_image-<preference>.csv of `orl-ldm ablate`.")],
    variant: str = "everything",
) -> None:
    """The steered policy's mean over seeds, its differences from every control, and from the LDM alone by scene."""
    evaluation = read_evaluation(folder)
    names = [metric.name for metric in SHOWN]
    runs = pd.read_csv(scores)
    runs = runs[runs["variant"] == variant]
    each = runs.groupby(["image", "scene"], sort=False)[names].mean().reset_index().assign(method=STEERED)
    controls = evaluation.per_image[evaluation.per_image["method"] != evaluation.roles["steered"]]
    both = pd.concat([controls[controls["image"].isin(each["image"])], each], ignore_index=True)
    by_seed = runs.groupby("seed")["reward"].mean()
    print(f"{len(by_seed)} seeds, {len(each)} images; mean rewards {', '.join(f'{r:.4f}' for r in by_seed)}\n")
    print(against(both, [name for name in controls["method"].unique() if name != evaluation.roles["ceiling"]]))
    print(by_scene(both, evaluation.roles["alone"]))


def against(both: pd.DataFrame, others: list[str]) -> str:
    """Means of every method, and the difference of the steered policy's reward from it."""
    means = means_by_method(both)
    rows = []
    for name in [*others, STEERED]:
        cells = [Cell(text(metric, means[name][metric.name])) for metric in SHOWN]
        change = None if name == STEERED else changes(paired_intervals(both, STEERED, name))["reward"]
        cells.append(Cell(change.text, change.mark, f"{change.interval} {change.won:.0%}") if change else Cell(""))
        rows.append(Row((Cell(name), *cells)))
    return Table(("method", *map(title, SHOWN), "steered minus this"), tuple(rows)).markdown()


def by_scene(both: pd.DataFrame, alone: str) -> str:
    """Differences from the LDM alone in each scene; NFE as a share of its calls."""
    rows = []
    scenes = [(str(scene), both[both["scene"] == scene]) for scene in sorted(both["scene"].unique())]
    for scene, part in [*scenes, ("all scenes", both)]:
        change, means = changes(paired_intervals(part, STEERED, alone)), means_by_method(part)
        cells = [Cell(change[name].text, change[name].mark) for name in ("psnr", "ssim", "lpips")]
        share = Cell(f"1/{means[alone]['nfe'] / means[STEERED]['nfe']:.0f}")
        rows.append(Row((Cell(scene), Cell(str(part["image"].nunique())), *cells, share)))
    return Table(("scene", "images", "PSNR (dB)", "SSIM", "LPIPS", "NFE"), tuple(rows)).markdown()


if __name__ == "__main__":
    app()
