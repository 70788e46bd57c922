"""The overall table on a terminal."""

from pathlib import Path

from rich.console import Console

from orl_ldm.report.inputs import read_evaluation
from orl_ldm.report.tables import overall, steered_intervals
from orl_ldm.report.words import verdict_lines

#: Method, PSNR, SSIM, LPIPS, NFE, seconds and reward; the other settings' rewards do not fit into 80 characters.
COLUMNS = 7


def print_table(folder: Path, console: Console) -> None:
    """Print means per method, then the steered policy's paired differences with their 95% intervals."""
    evaluation = read_evaluation(folder)
    images = evaluation.per_image["image"].nunique()
    title = f"{evaluation.facts.get('pipeline', folder.name)}: {images} test images"
    console.print(overall(evaluation).rich(title, COLUMNS))
    for line in verdict_lines(evaluation, steered_intervals(evaluation)):
        console.print(line, markup=False, highlight=False)
