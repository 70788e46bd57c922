"""`rio upscale`: the command for those who live in rasterio's."""

import click


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
    short_help="Make images four times as large (orl-ldm upscale).",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def upscale(arguments: tuple[str, ...]) -> None:
    """What `orl-ldm upscale` does, with its options."""
    from orl_ldm.cli.main import app, main

    main(lambda: app(["upscale", *arguments], prog_name="rio"))
