"""`orl-ldm`: one command for each stage. Each reads a pipeline file, and its errors name what to run first."""

import math
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.text import Text
from safetensors import SafetensorError

from orl_ldm.cli import buffer
from orl_ldm.cli.environment import InterruptedByUser, catch_signals, name_user, place_caches, print_in_any_encoding
from orl_ldm.cli.upscale import upscale
from orl_ldm.errors import UserError
from orl_ldm.files import reason
from orl_ldm.shipped import missing
from orl_ldm.terminal import printable, say

app = typer.Typer(
    help="Super-resolve aerial images with a frozen latent diffusion model (LDM) whose denoising is steered by a "
    "policy, learned offline from logged data.\n\n"
    "Start with `orl-ldm demo`: it runs all stages on small synthetic images. The stages by themselves are collect "
    "(log decisions, best on a GPU), train (learn a policy, on any machine) and evaluate (compare it on held-out "
    "images). A pipeline file in pipelines/ says what they do; --set changes single settings.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(upscale)
console = Console(markup=False, emoji=False, highlight=False)

#: Rounds of the demo after its first collection, and rollouts of every image in each.
DEMO_ROUNDS, DEMO_ROLLOUTS = 2, 3

PipelineArgument = Annotated[
    str, typer.Argument(help="The name of a pipeline in pipelines/, or a file (.toml).", show_default=True)
]
SetOption = Annotated[
    list[str],
    typer.Option(
        "--set",
        help="Change a setting of the pipeline, such as collect.images=8. Repeatable.",
        metavar="SECTION.KEY=VALUE",
    ),
]


@app.command()
def demo(pipeline: PipelineArgument = "demo", settings: SetOption = []) -> None:  # noqa: B006
    """Run all stages: collect and train, evaluate, report.

    The first policy is trained on random decisions. Two more rounds collect around the last policy and train again.
    """
    from orl_ldm.cli import stages
    from orl_ldm.cli.loop import loop

    best = loop(pipeline, DEMO_ROUNDS, DEMO_ROLLOUTS, -math.inf, settings, console)
    stages.evaluate(pipeline, [*settings, f"train.out={best}"], console)


@app.command()
def collect(pipeline: PipelineArgument = "demo", settings: SetOption = []) -> None:  # noqa: B006
    """Run the LDM on training images; log every decision.

    The log is a buffer: a folder of files that training reads. An interrupted collection goes on where it stopped.
    """
    from orl_ldm.cli import stages

    stages.collect(pipeline, settings, console)
    say_next("train", pipeline, settings)


@app.command()
def train(
    pipeline: PipelineArgument = "demo",
    algo: Annotated[
        str,
        typer.Option(
            help="The algorithm: critics, ppo, bppo, or one of d3rlpy's (d3rlpy-iql, ...). Short for --set "
            "train.algo=NAME.",
            metavar="NAME",
        ),
    ] = "",
    settings: SetOption = [],  # noqa: B006
) -> None:
    """Learn a policy from buffers. Needs no LDM.

    An interrupted training goes on from its last checkpoint.
    """
    from orl_ldm.cli import stages

    stages.train(pipeline, [*settings, f"train.algo={algo}"] if algo else settings, console)
    say_next("evaluate", pipeline, settings)


@app.command()
def evaluate(
    pipeline: PipelineArgument = "demo",
    prefer: Annotated[
        str,
        typer.Option(
            help="What matters more: paper, balanced, perceptual, or shares such as perception=2,distortion=1. For a "
            "preference-conditioned policy; its own default otherwise.",
            metavar="PREFERENCE",
        ),
    ] = "",
    policy: Annotated[
        str, typer.Option(help="`embedded` or a policy folder; else what the pipeline trained.", metavar="POLICY")
    ] = "",
    settings: SetOption = [],  # noqa: B006
) -> None:
    """Compare policy and controls on held-out images.

    Writes tables, figures and an HTML page, as `report` does.
    """
    from orl_ldm.cli import stages

    given = {"prefer": prefer, "policy": policy}
    own = [f"evaluate.{name}={value}" for name, value in given.items() if value]
    stages.evaluate(pipeline, [*settings, *own], console)


@app.command()
def report(pipeline: PipelineArgument = "demo", settings: SetOption = []) -> None:  # noqa: B006
    """Write an evaluation's tables, figures and page again."""
    from orl_ldm.cli import stages

    stages.report(pipeline, settings, console)


@app.command()
def loop(
    pipeline: PipelineArgument = "demo",
    rounds: Annotated[int, typer.Option(help="At most this many rounds after the first collection.", min=0)] = 2,
    rollouts: Annotated[int, typer.Option(help="Rollouts of every image in a further round.", min=1)] = 4,
    gain: Annotated[float, typer.Option(help="Stop when a round raises the estimated reward by less.")] = 0.001,
    settings: SetOption = [],  # noqa: B006
) -> None:
    """Collect and train in rounds.

    Each round collects around the last policy and trains on everything collected so far.
    """
    from orl_ldm.cli.loop import loop

    best = loop(pipeline, rounds, rollouts, gain, settings, console)
    say_next("evaluate", pipeline, [*settings, f"train.out={best}"])


@app.command()
def ope(
    pipeline: PipelineArgument = "demo",
    run: Annotated[
        list[str],
        typer.Option(
            help="A training folder with checkpoints, repeatable. The pipeline's own otherwise.", metavar="DIR"
        ),
    ] = [],  # noqa: B006
    images: Annotated[
        int,
        typer.Option(help="Replay on this many training images that nothing was learned from; 0: as logged.", min=0),
    ] = 0,
    replay: Annotated[bool, typer.Option(help="Replay the checkpoints with the LDM, beside the estimates.")] = True,
    settings: SetOption = [],  # noqa: B006
) -> None:
    """Estimate checkpoints offline, and replay them.

    Off-policy evaluation of the checkpoints that a training kept (--set train.keep_checkpoints=20).
    """
    from orl_ldm.cli.ope import ope

    ope(pipeline, run, images, replay, settings, console)


@app.command()
def ablate(
    pipeline: PipelineArgument = "demo",
    rounds: Annotated[int, typer.Option(help="Learn from so many rounds of `orl-ldm loop`.", min=0)] = 0,
    seeds: Annotated[int, typer.Option(help="Number of training seeds.", min=1)] = 5,
    first_seed: Annotated[int, typer.Option(help="The first seed; the others follow it.", min=0)] = 0,
    prefer: Annotated[
        str,
        typer.Option(
            help="The reward to compare under: a named setting, or shares such as perception=2,distortion=1.",
            metavar="PREFERENCE",
        ),
    ] = "",
    only: Annotated[
        list[str],
        typer.Option(help="A variant, repeatable. All but other algorithms otherwise.", metavar="VARIANT"),
    ] = [],  # noqa: B006
    out: Annotated[
        str, typer.Option(help="The folder of trainings and tables. runs/<name>/ablation otherwise.", metavar="DIR")
    ] = "",
    settings: SetOption = [],  # noqa: B006
) -> None:
    """Train variants without single parts; compare them.

    Every variant is trained with several seeds and replayed on held-out images. The result is one table.
    """
    from orl_ldm.cli.ablate import ablate

    ablate(pipeline, rounds, range(first_seed, first_seed + seeds), prefer, only, out, settings, console)


app.add_typer(buffer.app, name="buffer")


@app.command()
def images(
    pipeline: PipelineArgument = "demo",
    split: Annotated[str, typer.Option(help="Which split to list.")] = "test",
    sheet: Annotated[str, typer.Option(help="Also save a contact sheet here (.png).", metavar="FILE")] = "",
    settings: SetOption = [],  # noqa: B006
) -> None:
    """List the images that a pipeline uses."""
    from orl_ldm.cli import stages

    stages.images(pipeline, settings, split, sheet, console)


@app.command()
def pretrain(
    pipeline: Annotated[
        str, typer.Argument(help="The name of a pretraining pipeline in pipelines/, or a file (.toml).")
    ] = "pretrain",
    settings: SetOption = [],  # noqa: B006
) -> None:
    """Train an LDM of your own.

    First stage, then denoiser, on any image source. An interrupted training goes on from its last checkpoint.
    """
    from orl_ldm.cli import stages

    stages.pretrain(pipeline, settings)


@app.command()
def prepare() -> None:
    """Fetch the weights that the LPIPS metric needs (once)."""
    from orl_ldm.cli import stages

    stages.prepare(console)


def say_next(command: str, pipeline: str, settings: Sequence[str]) -> None:
    """Print the command of the next stage, with the same settings."""
    from orl_ldm.cli.stages import typed

    say(console, f"next: {typed(command, pipeline, settings)}")


def main(run: Callable[[], Any] = app) -> NoReturn:
    """The console script. UserErrors, disk errors and interruptions end in one sentence instead of a traceback."""
    catch_signals()
    print_in_any_encoding()
    name_user()
    errors = Console(stderr=True)
    if note := place_caches():
        say(errors, note)
    try:
        run()
    except UserError as error:
        fail(errors, str(error))
    except OSError as error:
        places = [str(place) for place in (error.filename, error.filename2) if place is not None]
        fail(errors, f"{reason(error)}{': ' if places else ''}{' and '.join(map(repr, places))}")
    except SafetensorError as error:
        fail(errors, f"weights could not be read or written: {reason(error)}")
    except ModuleNotFoundError as error:
        if (remedy := missing(error.name or "")) is None:
            raise
        fail(errors, remedy)
    except (InterruptedByUser, KeyboardInterrupt):
        say(errors, "interrupted; run the same command again to go on where it stopped")
        sys.exit(130)
    sys.exit(0)


def fail(errors: Console, sentence: str) -> NoReturn:
    """Print what was wrong, and exit with status 2."""
    errors.print(Text.assemble(("error:", "red"), f" {printable(' '.join(sentence.splitlines()))}"), soft_wrap=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
