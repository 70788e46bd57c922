"""The files of an LDM in diffusers' layout: where they are, which of them are loaded, and their digest."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orl_ldm.errors import UserError
from orl_ldm.shipped import shipped

FIRST_STAGES = ("VQModel", "AutoencoderKL", "AutoencoderDC")
#: Formats of weights, the preferred first.
FORMATS = ("safetensors", "bin")
NAME = "diffusion_pytorch_model"


@dataclass(frozen=True)
class Weights:
    """A network's weights: their files (with the index of several), their format, and their variant (`fp16`)."""

    files: tuple[Path, ...]
    format: str
    variant: str | None


@dataclass(frozen=True)
class ModelFiles:
    """What is loaded of an LDM's folder, and nothing else."""

    folder: Path
    stage: str  # the folder of the first stage
    stage_class: str  # one of FIRST_STAGES
    weights: dict[str, Weights]  # of "unet" and of the first stage
    configs: dict[str, dict[str, Any]]  # of the same
    scheduler: dict[str, Any]

    @property
    def digest(self) -> str:
        """SHA-256 over the names and contents of the files that are loaded."""
        configs = [self.folder / "scheduler" / "scheduler_config.json", self.folder / "model_index.json"]
        configs += [self.folder / part / "config.json" for part in self.weights]
        files = sorted([*configs, *(file for weights in self.weights.values() for file in weights.files)])
        whole = hashlib.sha256()
        for path in files:
            whole.update(path.relative_to(self.folder).as_posix().encode() + b"\0")
            with path.open("rb") as file:
                whole.update(hashlib.file_digest(file, "sha256").digest())
        return whole.hexdigest()


def model_files(ldm_id: str) -> ModelFiles:
    """The files of an LDM. Raises UserError when the folder is missing, or is no such model."""
    folder = resolve(ldm_id)
    index = _json(folder / "model_index.json", ldm_id)
    names = {name: spec[1] for name, spec in index.items() if isinstance(spec, list) and len(spec) == 2 and spec[1]}
    stage = next((name for name, cls in names.items() if cls in FIRST_STAGES), None)
    if stage is None or names.get("unet") != "UNet2DModel" or "scheduler" not in names:
        raise UserError(
            f"{ldm_id!r} is not an LDM super-resolution model: model_index.json must name a UNet2DModel `unet`, "
            f"a `scheduler` and a first stage of {', '.join(FIRST_STAGES)}; it names {names}"
        )
    weights = {part: _weights(folder / part, ldm_id) for part in ("unet", stage)}
    configs = {part: _json(folder / part / "config.json", ldm_id) for part in weights}
    scheduler = _json(folder / "scheduler" / "scheduler_config.json", ldm_id)
    return ModelFiles(folder, stage, names[stage], weights, configs, scheduler)


def resolve(ldm_id: str) -> Path:
    """The local folder of an LDM; a hub id is downloaded into the hub's cache."""
    if ldm_id == "embedded":
        return shipped("embedded-ldm")
    try:
        folder = Path(ldm_id).expanduser()
    except RuntimeError:
        raise UserError(f"the home folder in {ldm_id!r} is not known: set HOME, or write the whole path") from None
    if folder.is_dir():
        return folder
    if ldm_id.count("/") != 1 or ldm_id.startswith((".", "/", "~")):
        raise UserError(f"there is no LDM at {ldm_id!r}: give `embedded`, a folder, or a hub id (owner/name)")
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(ldm_id, allow_patterns=["*.json", f"*.{FORMATS[0]}"]))
        older = [path.parent for path in folder.glob("*/config.json") if not any(path.parent.glob(f"*.{FORMATS[0]}"))]
        if older:
            snapshot_download(ldm_id, allow_patterns=[f"{part.name}/*.{FORMATS[1]}" for part in older])
        return folder
    except Exception as error:  # many kinds of network and repository errors
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"could not get the LDM {ldm_id!r} from the hub (no such folder either): {reason}") from error


def _weights(part: Path, ldm_id: str) -> Weights:
    """The weights that are loaded: without a variant, else those of the only variant; safetensors, else `.bin`."""
    for suffix in FORMATS:
        if files := _files(part, suffix, None):
            return Weights(files, suffix, None)
    for suffix in FORMATS:
        variants = sorted(
            {path.name.split(".")[1].partition("-")[0] for path in part.glob(f"{NAME}.*.{suffix}")}
            | {path.name.split(".")[-2] for path in part.glob(f"{NAME}.{suffix}.index.*.json")}
        )
        if len(variants) > 1:
            raise UserError(
                f"{part.name}/ of {ldm_id!r} has weights of several variants ({', '.join(variants)}): keep one of them"
            )
        if variants and (files := _files(part, suffix, variants[0])):
            return Weights(files, suffix, variants[0])
    raise UserError(f"{ldm_id!r} has no weights in {part.name}/: neither {NAME}.{FORMATS[0]} nor {NAME}.{FORMATS[1]}")


def _files(part: Path, suffix: str, variant: str | None) -> tuple[Path, ...]:
    """The files of one format and variant: one, or an index and what it lists."""
    dotted = f".{variant}" if variant else ""
    one = part / f"{NAME}{dotted}.{suffix}"
    index = part / f"{NAME}.{suffix}.index{dotted}.json"
    if one.exists():
        return (one,)
    if not index.exists():
        return ()
    listed = _json(index, part.name).get("weight_map", {})
    files = sorted({part / str(name) for name in listed.values()})
    if absent := next((file for file in files if not file.exists()), None):
        raise UserError(f"{str(absent)!r} is missing, which {index.name} lists")
    return (index, *files)


def _json(path: Path, ldm_id: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{ldm_id!r} is not a diffusers model: it has no {path.name} in {path.parent.name}/") from None
    except ValueError as error:
        raise UserError(f"{path.name} of {ldm_id!r} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path.name} of {ldm_id!r} is no JSON object")
    return content
