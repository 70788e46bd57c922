"""The files of an LDM: what is read, what counts, and what is refused with a sentence."""

import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_ldm import ldm_copy

from orl_ldm.diffusion.config import LDMConfig
from orl_ldm.diffusion.ldm import load_ldm, open_ldm
from orl_ldm.diffusion.model_files import model_files
from orl_ldm.errors import UserError


def test_the_digest_names_the_weights(tmp_path: Path, ldm_folder: Path) -> None:
    shutil.copytree(ldm_folder, tmp_path / "copy")
    assert load_ldm(str(tmp_path / "copy")).digest == load_ldm(str(ldm_folder)).digest
    weights = next((tmp_path / "copy" / "unet").glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert load_ldm(str(tmp_path / "copy")).digest != load_ldm(str(ldm_folder)).digest


@pytest.mark.parametrize(
    "file",
    [
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/notes.json",
        "training.json",
        "vqvae/old/diffusion_pytorch_model.safetensors",
        "unet/diffusion_pytorch_model.bin",
        "README.md",
    ],
)
def test_what_is_not_read_does_not_count(tmp_path: Path, ldm_folder: Path, file: str) -> None:
    place = ldm_copy(ldm_folder, tmp_path / "copy")
    (tmp_path / "copy" / file).parent.mkdir(exist_ok=True)
    (tmp_path / "copy" / file).write_bytes(b"{}")
    assert load_ldm(place).digest == load_ldm(str(ldm_folder)).digest


@pytest.mark.parametrize("file", ["unet/config.json", "vqvae/config.json", "scheduler/scheduler_config.json"])
def test_what_is_read_counts(tmp_path: Path, ldm_folder: Path, file: str) -> None:
    place = ldm_copy(ldm_folder, tmp_path / "copy")
    path = tmp_path / "copy" / file
    path.write_text(path.read_text() + "\n")
    assert load_ldm(place).digest != load_ldm(str(ldm_folder)).digest


@pytest.mark.parametrize(("variant", "sharded"), [("fp16", False), ("fp16", True), ("bf16", False), (None, True)])
def test_weights_of_a_variant_and_in_shards_are_read(
    tmp_path: Path, ldm_folder: Path, variant: str | None, sharded: bool
) -> None:
    ours, place = load_ldm(str(ldm_folder)), ldm_copy(ldm_folder, tmp_path / "copy")
    (tmp_path / "copy/unet/diffusion_pytorch_model.safetensors").unlink()
    size = {"max_shard_size": "20KB"} if sharded else {}
    ours.unet.save_pretrained(tmp_path / "copy/unet", variant=variant, **size)
    assert len(list((tmp_path / "copy/unet").glob("*.safetensors"))) > 1 or not sharded
    theirs = load_ldm(place)
    x, t, lr = torch.rand(1, ours.latent_channels, 8, 8), torch.tensor([500.0]), torch.rand(1, 3, 8, 8)
    assert torch.equal(theirs.denoise(x, t, lr), ours.denoise(x, t, lr))
    weights = next((tmp_path / "copy/unet").glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert load_ldm(place).digest != theirs.digest
    if sharded:
        weights.unlink()
        with pytest.raises(UserError, match=r"is missing, which .*index.*json lists"):
            load_ldm(place)


def test_of_several_variants_none_is_guessed(tmp_path: Path, ldm_folder: Path) -> None:
    place = ldm_copy(ldm_folder, tmp_path / "copy")
    weights = tmp_path / "copy/unet/diffusion_pytorch_model.safetensors"
    for variant in ("fp16", "ema"):
        shutil.copy(weights, weights.with_name(f"diffusion_pytorch_model.{variant}.safetensors"))
    load_ldm(place)
    weights.unlink()
    with pytest.raises(UserError, match=r"several variants \(ema, fp16\): keep one"):
        load_ldm(place)


@pytest.mark.parametrize("special", ["d/[aerial] 2024 #1 50% a:b \u673a\u573a {x}*", "x::y", "~"])
def test_any_path_is_an_ldm_s(tmp_path: Path, ldm_folder: Path, special: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    place = tmp_path / "home" if special == "~" else tmp_path / special
    ldm_copy(ldm_folder, place)
    assert load_ldm(special if special == "~" else str(place)).digest == load_ldm(str(ldm_folder)).digest


def without_its_end(path: Path) -> None:
    """The same weights without those of the last layer, which a loader might fill in at random."""
    save_file({name: value for name, value in load_file(path).items() if not name.startswith("conv_out.")}, path)


class Mischief:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_older_weights_are_read_and_nothing_in_them_is_run(tmp_path: Path, ldm_folder: Path) -> None:
    shutil.copytree(ldm_folder, tmp_path / "ldm")
    ours, both = load_ldm(str(ldm_folder)), model_files(str(tmp_path / "ldm")).digest
    weights = tmp_path / "ldm" / "unet" / "diffusion_pytorch_model.safetensors"
    old = weights.with_suffix(".bin")
    torch.save(load_file(weights), old)
    assert model_files(str(tmp_path / "ldm")).digest == both  # what is not read does not count
    weights.unlink()
    older = load_ldm(str(tmp_path / "ldm"))
    x, t, lr = torch.rand(1, older.latent_channels, 8, 8), torch.tensor([500.0]), torch.rand(1, 3, 8, 8)
    assert torch.equal(older.denoise(x, t, lr), ours.denoise(x, t, lr))
    assert older.digest != ours.digest
    torch.save({"conv_in.bias": Mischief(tmp_path / "was here")}, old)
    with pytest.raises(UserError, match="cannot be loaded"):
        load_ldm(str(tmp_path / "ldm"))
    assert not (tmp_path / "was here").exists()


def test_of_a_hub_model_older_weights_are_fetched_where_there_are_no_others(
    tmp_path: Path, ldm_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub, cache = tmp_path / "hub", tmp_path / "cache"
    shutil.copytree(ldm_folder, hub)
    weights = hub / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    stage = next(path for path in hub.glob("*/*.safetensors"))
    stage.with_suffix(".bin").write_bytes(b"not to be fetched")

    def fetch(ldm_id: str, allow_patterns: list[str]) -> str:
        for path in hub.rglob("*"):
            if path.is_file() and any(fnmatch(path.relative_to(hub).as_posix(), one) for one in allow_patterns):
                (cache / path.relative_to(hub)).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, cache / path.relative_to(hub))
        return str(cache)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    load_ldm("somebody/older")
    assert [path.parent.name for path in cache.rglob("*.bin")] == ["unet"]


def test_what_is_no_ldm_is_refused(tmp_path: Path, ldm_folder: Path) -> None:
    with pytest.raises(UserError, match="no LDM at "):
        load_ldm("./nowhere")
    with pytest.raises(UserError, match="has no model_index"):
        load_ldm(str(tmp_path))
    shutil.copytree(ldm_folder, tmp_path / "bare")
    (tmp_path / "bare" / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(UserError, match="no weights in unet/"):
        load_ldm(str(tmp_path / "bare"))
    for part, damage, message in (
        ("unet/config.json", lambda path: path.unlink(), "it has no config.json in unet/"),
        ("model_index.json", lambda path: path.write_text("[1]"), "is no JSON object"),
        ("unet/diffusion_pytorch_model.safetensors", lambda path: path.write_bytes(b"1234"), "cannot be loaded"),
        ("unet/diffusion_pytorch_model.safetensors", without_its_end, "lacks 2 of its weights, conv_out"),
    ):
        shutil.rmtree(tmp_path / "damaged", ignore_errors=True)
        shutil.copytree(ldm_folder, tmp_path / "damaged")
        damage(tmp_path / "damaged" / part)
        with pytest.raises(UserError, match=message):
            load_ldm(str(tmp_path / "damaged"))
    with pytest.raises(UserError, match="not usable here"):
        open_ldm(LDMConfig(id=str(ldm_folder), device="cuda:99"))
