"""A pipeline: one TOML file with sections for data, LDM, sampler, collect, train and evaluate."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orl_ldm.collect.config import CollectConfig
from orl_ldm.config import STRICT, build, nearest, override, read_toml
from orl_ldm.diffusion.config import LDMConfig, SamplerConfig
from orl_ldm.errors import UserError
from orl_ldm.evaluate.config import EvaluateConfig
from orl_ldm.images.config import DataConfig
from orl_ldm.learn import TrainConfig

FOLDER = Path("pipelines")


@dataclass(frozen=True)
class Pipeline:
    """All settings of a run, a section for each stage and for what the stages share."""

    __pydantic_config__ = STRICT

    name: str
    train: TrainConfig
    data: DataConfig = DataConfig()
    ldm: LDMConfig = LDMConfig()
    sampler: SamplerConfig = SamplerConfig()
    collect: CollectConfig = CollectConfig()
    evaluate: EvaluateConfig = EvaluateConfig()


def load_pipeline(name: str, settings: Sequence[str] = ()) -> Pipeline:
    """`pipelines/NAME.toml`, or the file of that path, with ``--set section.key=value`` overrides applied.

    Folders that the file does not name are `runs/<name>/...`. Raises UserError that names what is wrong.
    """
    path = find_pipeline(name)
    table = override(read_toml(path), settings)
    table.setdefault("name", path.stem)
    for section in ("collect", "train", "evaluate"):
        if not isinstance(table.setdefault(section, {}), dict):
            raise UserError(f"{path}: {section!r} is a section of settings, not a value")
    run = f"runs/{table['name']}"
    table["collect"].setdefault("out", f"{run}/buffer")
    table["train"].setdefault("out", f"{run}/train")
    table["train"].setdefault("buffers", [table["collect"]["out"]])
    table["evaluate"].setdefault("out", f"{run}/evaluate")
    return build(Pipeline, table, f"{path}, with what the command line sets" if settings else str(path))


def find_pipeline(name: str, pretraining: bool = False) -> Path:
    """The file of a pipeline's name or path. Raises UserError with the names that there are, nearest first.

    Pipelines whose name begins with `pretrain` train an LDM; the others steer one.
    """
    path = Path(name).expanduser() if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if not path.exists() and FOLDER.is_dir():
        names = sorted(p.stem for p in FOLDER.glob("*.toml") if p.stem.startswith("pretrain") == pretraining)
        raise UserError(f"there is no pipeline {str(path)!r}{nearest(path.stem, names)}; there are: {', '.join(names)}")
    return path
