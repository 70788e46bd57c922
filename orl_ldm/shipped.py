"""Where the models are that come with the package, and which extra brings a library that is missing."""

from pathlib import Path

#: Extra -> the modules that it brings; one module may be in several, the smallest extra first.
EXTRAS: dict[str, tuple[str, ...]] = {
    "ldm": ("diffusers", "datasets", "PIL", "gymnasium", "torchvision", "torchmetrics", "lpips"),
    "evaluate": ("cma", "matplotlib", "jinja2", "spandrel"),
    "pretrain": ("accelerate",),
    "upscale": ("rasterio",),
    "s3": ("s3fs",),
    "d3rlpy": ("d3rlpy",),
    "export": ("minari", "pyarrow"),
}


def shipped(name: str) -> Path:
    """The folder of a shipped model, `embedded-ldm` or `embedded-policy`: in the installed package, or in a clone."""
    package = Path(__file__).resolve().parent
    installed, clone = package / "data" / name, package.parent / "data" / name
    return installed if installed.is_dir() else clone


def missing(module: str) -> str | None:
    """What to do about a module that cannot be imported; None where no extra brings it."""
    top = module.partition(".")[0]
    extra = next((extra for extra, modules in EXTRAS.items() if top in modules), None)
    return (
        f"{top} is not installed: install the extra {extra!r} (in a clone: pip install -e '.[{extra}]')"
        if extra
        else None
    )
