"""A checkpoint: everything that a run needs to go on, in one safetensors file with JSON in its header.

The file is replaced in one rename, so that a whole checkpoint is always on disk. Random numbers are functions of
(seed, step) and need no state.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from orl_ldm.errors import UserError

Parts = Mapping[str, nn.Module | Optimizer]


@dataclass
class Progress:
    """How far a run has come. `digest` names its configuration and its data."""

    digest: str
    epochs: int = 0
    seconds: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)  # of the last epoch
    alarms: dict[str, int] = field(default_factory=dict)  # metric -> number of epochs with an alarm
    selected: int = 0  # epoch of the checkpoint that is selected so far
    judged: list[dict[str, float]] = field(default_factory=list)  # one entry for each candidate, in order


def save(path: Path, parts: Parts, progress: Progress) -> None:
    """Write a checkpoint durably in place of the one before."""
    staged = path.with_name(path.name + ".tmp")
    save_file(_tensors(parts), staged, metadata={"progress": json.dumps(asdict(progress))})
    with staged.open("rb") as file:
        os.fsync(file.fileno())
    staged.replace(path)


def load(path: Path, parts: Parts, digest: str) -> Progress | None:
    """Restore `parts` from the checkpoint of this digest; None when it is of another. Raises UserError for damage."""
    try:
        with safe_open(path, framework="pt") as file:
            progress = Progress(**json.loads((file.metadata() or {})["progress"]))
            if progress.digest != digest:
                return None
            _restore(parts, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"the checkpoint {str(path)!r} is damaged: {reason}; delete it to train anew") from error
    return progress


def _tensors(parts: Parts) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, part in parts.items():
        if isinstance(part, Optimizer):
            slots = part.state_dict()["state"]
            tensors |= {f"{name}/{i}/{slot}": value for i, state in slots.items() for slot, value in state.items()}
        else:
            tensors |= {f"{name}/{key}": value.contiguous() for key, value in part.state_dict().items()}
    return tensors


def _restore(parts: Parts, tensors: Mapping[str, Tensor]) -> None:
    for name, part in parts.items():
        own = {key.removeprefix(f"{name}/"): value for key, value in tensors.items() if key.startswith(f"{name}/")}
        if isinstance(part, Optimizer):
            slots: dict[int, dict[str, Any]] = {}
            for key, value in own.items():
                index, slot = key.split("/")
                slots.setdefault(int(index), {})[slot] = value
            part.load_state_dict({"state": slots, "param_groups": part.state_dict()["param_groups"]})
        else:
            part.load_state_dict(own)
