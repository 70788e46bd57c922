"""`orl-ldm`: one command for each stage. Each reads a pipeline file and explains itself when a stage is missing."""

import math
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from orl_ldm.cli import buffer
from orl_ldm.cli.interrupt import InterruptedByUser, install
from orl_ldm.cli.upscale import upscale
from orl_ldm.errors import UserError

app = typer.Typer(
    help="Teach a frozen latent diffusion model to super-resolve aerial images, by offline reinforcement learning.\n\n"
    "The stages are collect (GPU), train (any machine), evaluate; `demo` runs all three, in rounds.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(buffer.app, name="buffer")
app.command()(upscale)
console = Console()

#: Rounds of the demo after its first collection, and rollouts of every image in each.
DEMO_ROUNDS, DEMO_ROLLOUTS = 2, 3

PipelineArgument = Annotated[
    str, typer.Argument(help="A pipeline file (.toml), or the name of one in pipelines/.", show_default=True)
]
SetOption = Annotated[
    list[str], typer.Option("--set", help="Override one setting: section.key=value. Repeatable.", metavar="KEY=VALUE")
]


@app.command()
def collect(pipeline: PipelineArgument = "demo", settings: SetOption = []) -> None:  # noqa: B006
    """Roll the LDM out over training images and publish every decision to a buffer."""
    from orl_ldm.cli import stages

    stages.collect(pipeline, settings, console)
    say_next("train", pipeline, settings)


@app.command()
def train(
    pipeline: PipelineArgument = "demo",
    algo: Annotated[
        str,
        typer.Option(
            help="critics, ppo, bppo, or d3rlpy-iql and the like; short for --set train.algo=NAME.", metavar="NAME"
        ),
    ] = "",
    settings: SetOption = [],  # noqa: B006
) -> None:
    """Learn a policy offline from one or many buffers. Needs no LDM and no images."""
    from orl_ldm.cli import stages

    stages.train(pipeline, [*settings, f"train.algo={algo}"] if algo else settings, console)
    say_next("evaluate", pipeline, settings)


@app.command()
def evaluate(
    pipeline: PipelineArgument = "demo",
    prefer: Annotated[
        str, typer.Option(help="Turn the dial of a policy that has one: `fidelity=1,speed=0`, or a setting's name.")
    ] = "",
    settings: SetOption = [],  # noqa: B006
) -> None:
    """Score the policy and its controls on held-out images; write tables and the report."""
    from orl_ldm.cli import stages

    stages.evaluate(pipeline, [*settings, f"evaluate.prefer={prefer}"] if prefer else settings, console)


@app.command()
def loop(
    pipeline: PipelineArgument = "demo",
    rounds: Annotated[int, typer.Option(help="At most this many rounds after the first collection.", min=0)] = 2,
    rollouts: Annotated[int, typer.Option(help="Rollouts of every image in a further round.", min=1)] = 4,
    gain: Annotated[float, typer.Option(help="Stop when a round raises the estimated reward by less.")] = 0.001,
    settings: SetOption = [],  # noqa: B006
) -> None:
    """Collect and train in rounds: each explores around the last policy and learns from all that was collected."""
    from orl_ldm.cli.loop import loop

    best = loop(pipeline, rounds, rollouts, gain, settings, console)
    say_next("evaluate", pipeline, [*settings, f"train.out={best}"])


@app.command()
def ope(
    pipeline: PipelineArgument = "demo",
    run: Annotated[
        list[str], typer.Option(help="A training folder with checkpoints; repeatable. Else that of the pipeline.")
    ] = [],  # noqa: B006
    images: Annotated[
        int, typer.Option(help="Replay on so many training images: the held-out ones, then ones never logged.", min=0)
    ] = 0,
    replay: Annotated[bool, typer.Option(help="Replay with the LDM, beside the estimates.")] = True,
    settings: SetOption = [],  # noqa: B006
) -> None:
    """Off-policy evaluation: estimate the checkpoints of training (train.keep_checkpoints=20) and replay them."""
    from orl_ldm.cli.ope import ope

    ope(pipeline, run, images, replay, settings, console)


@app.command()
def ablate(
    pipeline: PipelineArgument = "demo",
    rounds: Annotated[int, typer.Option(help="Learn from so many rounds of `orl-ldm loop`.", min=0)] = 0,
    seeds: Annotated[int, typer.Option(help="Training seeds, counted from the first.", min=1)] = 5,
    first_seed: Annotated[int, typer.Option(help="The first of them.", min=0)] = 0,
    prefer: Annotated[
        str, typer.Option(help="What is compared, and what a dial is turned to; else the pipeline's own.")
    ] = "",
    only: Annotated[list[str], typer.Option(help="A variant (repeatable); default: all but other algorithms.")] = [],  # noqa: B006
    out: Annotated[str, typer.Option(help="Where trainings and tables go; runs/<name>/ablation by default.")] = "",
    settings: SetOption = [],  # noqa: B006
) -> None:
    """Train without this and that, with several seeds, and compare on held-out images: one table."""
    from orl_ldm.cli.ablate import ablate

    ablate(pipeline, rounds, range(first_seed, first_seed + seeds), prefer, only, out, settings, console)


@app.command()
def report(pipeline: PipelineArgument = "demo", settings: SetOption = []) -> None:  # noqa: B006
    """Write tables, figures and the HTML page of an evaluation again."""
    from orl_ldm.cli import stages

    stages.report(pipeline, settings, console)


@app.command()
def demo(pipeline: PipelineArgument = "demo", settings: SetOption = []) -> None:  # noqa: B006
    """Collect and train, twice more around what was learned, then evaluate and report."""
    from orl_ldm.cli import stages
    from orl_ldm.cli.loop import loop

    best = loop(pipeline, DEMO_ROUNDS, DEMO_ROLLOUTS, -math.inf, settings, console)
    stages.evaluate(pipeline, [*settings, f"train.out={best}"], console)


@app.command()
def pretrain(
    pipeline: Annotated[
        str, typer.Argument(help="A pretraining file (.toml), or the name of one in pipelines/.")
    ] = "pretrain",
    settings: SetOption = [],  # noqa: B006
) -> None:
    """Train an LDM of your own (first stage, then denoiser) on any image source."""
    from orl_ldm.cli import stages

    stages.pretrain(pipeline, settings)


@app.command()
def prepare() -> None:
    """Fetch what the metrics need (the AlexNet weights of LPIPS) into the user's cache."""
    from orl_ldm.cli import stages

    stages.prepare(console)


@app.command()
def images(
    pipeline: PipelineArgument = "demo",
    split: Annotated[str, typer.Option(help="Which split to list.")] = "test",
    sheet: Annotated[str, typer.Option(help="Also save a contact sheet of the images here (.png).")] = "",
    settings: SetOption = [],  # noqa: B006
) -> None:
    """List the names of the images that a pipeline draws from a split."""
    from orl_ldm.cli import stages

    stages.images(pipeline, settings, split, sheet, console)


def say_next(command: str, pipeline: str, settings: Sequence[str]) -> None:
    """What to run, with the same settings, when a stage is done that somebody asked for by itself."""
    from orl_ldm.cli.stages import typed

    console.print(f"next: {typed(command, pipeline, settings)}", highlight=False, soft_wrap=True, markup=False)


def main(run: Callable[[], Any] = app) -> NoReturn:
    """The console script: UserErrors in one sentence, Ctrl-C and SIGTERM without a traceback."""
    install()
    errors = Console(stderr=True)
    try:
        run()
    except UserError as error:
        errors.print(f"[red]error:[/red] {escape(str(error))}", soft_wrap=True, highlight=False)
        sys.exit(2)
    except (InterruptedByUser, KeyboardInterrupt):
        errors.print("interrupted; run the same command again to go on where it stopped")
        sys.exit(130)
    sys.exit(0)


if __name__ == "__main__":
    main()
