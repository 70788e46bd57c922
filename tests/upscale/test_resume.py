"""A run that is stopped goes on where it was and ends with the same bytes."""

import json
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from upscale_samples import picture, write_tiff

from orl_ldm import SteeredSR, upscale_file
from orl_ldm.errors import UserError
from orl_ldm.upscale import work

SCENE = picture(128, 30)


class StopError(BaseException):
    """As Ctrl-C raises it, between any two instructions."""


def stop_after(pieces: int) -> Any:
    def progress(done: int, total: int) -> None:
        if done >= pieces:  # one tile in a row
            raise StopError

    return progress


@pytest.mark.parametrize("pieces", [2, 4])
def test_the_same_command_gives_the_same_bytes(steered: SteeredSR, tmp_path: Path, pieces: int) -> None:
    source = write_tiff(tmp_path / "in.tif", SCENE)
    options: dict[str, Any] = {"steered": steered, "tile": 32, "batch": 1}
    whole = upscale_file(source, tmp_path / "whole.tif", **options)
    with pytest.raises(StopError):
        upscale_file(source, tmp_path / "out.tif", progress=stop_after(pieces), **options)
    assert not (tmp_path / "out.tif").exists()
    resumed = upscale_file(source, tmp_path / "out.tif", **options)
    assert resumed.pieces_found == pieces
    assert (tmp_path / "out.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()
    assert resumed.tiles < whole.tiles
    assert not list(tmp_path.glob(".*"))


def test_other_options_are_refused_by_name_until_overwrite(steered: SteeredSR, tmp_path: Path) -> None:
    source, target = write_tiff(tmp_path / "in.tif", SCENE), tmp_path / "out.tif"
    with pytest.raises(StopError):
        upscale_file(source, target, steered=steered, tile=32, progress=stop_after(2))
    with pytest.raises(UserError, match=r"with another seed \(7, now 8\) and faithful \(False, now True\)"):
        upscale_file(source, target, steered=steered, tile=32, seed=8, faithful=True)
    write_tiff(source, SCENE[:, ::-1])
    with pytest.raises(UserError, match="with another input"):
        upscale_file(source, target, steered=steered, tile=32)
    report = upscale_file(source, target, steered=steered, tile=32, overwrite=True)
    assert report.pieces_found == 0


def test_a_damaged_piece_is_computed_again(steered: SteeredSR, tmp_path: Path) -> None:
    source, target = write_tiff(tmp_path / "in.tif", SCENE), tmp_path / "out.tif"
    upscale_file(source, tmp_path / "whole.tif", steered=steered, tile=32)
    with pytest.raises(StopError):
        upscale_file(source, target, steered=steered, tile=32, progress=stop_after(4))
    folder = tmp_path / ".out.tif.orl-ldm"
    piece = sorted(folder.glob("*.piece.tif"))[1]
    piece.write_bytes(piece.read_bytes()[:-10])
    (folder / "r9.part").write_bytes(b"half a piece")
    upscale_file(source, target, steered=steered, tile=32)
    assert target.read_bytes() == (tmp_path / "whole.tif").read_bytes()


def test_a_damaged_manifest_starts_again(steered: SteeredSR, tmp_path: Path) -> None:
    source, target = write_tiff(tmp_path / "in.tif", SCENE), tmp_path / "out.tif"
    with pytest.raises(StopError):
        upscale_file(source, target, steered=steered, tile=32, progress=stop_after(4))
    (tmp_path / ".out.tif.orl-ldm" / "manifest.json").write_text('{"identity": {')
    assert upscale_file(source, target, steered=steered, tile=32).pieces_found == 0


def test_the_manifest_holds_digests_and_no_paths(steered: SteeredSR, tmp_path: Path) -> None:
    source = write_tiff(tmp_path / "in.tif", SCENE)
    with pytest.raises(StopError):
        upscale_file(source, tmp_path / "out.tif", steered=steered, tile=32, progress=stop_after(1))
    text = (tmp_path / ".out.tif.orl-ldm" / "manifest.json").read_text()
    assert str(tmp_path) not in text
    assert json.loads(text)["identity"]["LDM"] == steered.ldm.digest


def test_two_runs_at_one_target(tmp_path: Path) -> None:
    source = write_tiff(tmp_path / "in.tif", SCENE)
    (tmp_path / ".out.tif.orl-ldm").mkdir()
    with FileLock(tmp_path / ".out.tif.orl-ldm" / "lock"), pytest.raises(UserError, match=r"is writing out\.tif"):
        upscale_file(source, tmp_path / "out.tif", method="bicubic")


def _upscale(source: Path, target: Path) -> None:
    upscale_file(source, target, method="bicubic", tile=32, progress=lambda done, total: time.sleep(0.05))


def test_kill_9_at_any_moment(tmp_path: Path) -> None:
    source = write_tiff(tmp_path / "in.tif", picture(400, 40))
    _upscale(source, tmp_path / "whole.tif")
    target, fork = tmp_path / "out.tif", multiprocessing.get_context("fork")
    for wait in (0.2, 0.35):
        child = fork.Process(target=_upscale, args=(source, target))
        child.start()
        threading.Event().wait(wait)
        os.kill(child.pid or 0, signal.SIGKILL)
        child.join()
        assert not target.exists()
    _upscale(source, target)
    assert target.read_bytes() == (tmp_path / "whole.tif").read_bytes()


def test_a_piece_that_the_disk_did_not_take_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_tiff(tmp_path / "in.tif", SCENE)
    digests = iter([b"one", b"another"])
    monkeypatch.setattr(work, "_digest", lambda pixels: next(digests))
    with pytest.raises(UserError, match="was not written completely"):
        upscale_file(source, tmp_path / "out.tif", method="bicubic")
    assert not (tmp_path / "out.tif").exists()
