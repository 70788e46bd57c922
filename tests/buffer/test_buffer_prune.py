"""What no reader takes can be removed, and nothing else ever is."""

import os
import time
import uuid
from pathlib import Path

import fsspec
import pytest
from buffer_samples import name, write

from orl_ldm.buffer import SCHEMA_VERSION, read, verify
from orl_ldm.buffer.local_store import LocalStore
from orl_ldm.buffer.prune import Waste, prune
from orl_ldm.errors import UserError

HOUR = 3600.0


def removed(wastes: list[Waste]) -> list[str]:
    return [waste.entry for waste in wastes if waste.removable]


def test_leftovers_go_and_published_shards_stay(tmp_path: Path) -> None:
    write(tmp_path, 0, "zarr")
    orphans = [write(tmp_path, 3), write(tmp_path, 6, "zarr")]
    for orphan in orphans:
        (tmp_path / f"{orphan.name}.json").unlink()
    stale = tmp_path / f".tmp-{name(9)}~0123"
    stale.mkdir()
    (stale / "half").write_text("half")
    (tmp_path / "README").write_text("mine")
    (tmp_path / "mine.h5").write_text("mine")
    with LocalStore("x", tmp_path).staging(name(12)) as living:
        assert removed(prune(tmp_path, HOUR)) == [stale.name]  # the others' writers may live
        assert removed(prune(tmp_path, 0, dry_run=True)) == [orphan.data for orphan in orphans]
        assert (tmp_path / orphans[0].data).exists()
        told: list[Waste] = []
        assert sorted(removed(prune(tmp_path, 0, tell=told.append))) == sorted(orphan.data for orphan in orphans)
        assert {waste.entry for waste in told} == {living.name, *(orphan.data for orphan in orphans)}
        assert living.exists()
    assert verify(tmp_path) == [] and read(tmp_path, strict=True).shards == (name(0),)
    assert (tmp_path / "README").read_text() == (tmp_path / "mine.h5").read_text() == "mine"


def test_age_is_that_of_the_newest_file(tmp_path: Path) -> None:
    described = write(tmp_path, 0, "zarr")
    (tmp_path / f"{name(0)}.json").unlink()
    files = [tmp_path / described.data, *(tmp_path / described.data).rglob("*")]
    for path in files:
        os.utime(path, (time.time() - 2 * HOUR,) * 2)
    os.utime(files[-1])
    assert removed(prune(tmp_path, HOUR)) == []
    os.utime(files[-1], (time.time() - 2 * HOUR,) * 2)
    assert removed(prune(tmp_path, HOUR)) == [described.data]


@pytest.mark.parametrize("place", ["folder", "memory"])
def test_quarantined_shards_go_only_when_asked_and_never_those_of_another_schema(tmp_path: Path, place: str) -> None:
    url = str(tmp_path) if place == "folder" else f"memory://{uuid.uuid4().hex}/buffer"
    cut, damaged, foreign = (write(url, unit) for unit in (0, 3, 6))
    write(url, 9)
    fs, root = fsspec.core.url_to_fs(url)
    fs.pipe_file(f"{root}/{cut.data}", b"x")
    fs.pipe_file(f"{root}/{damaged.name}.json", b"{")
    later = fs.cat_file(f"{root}/{foreign.name}.json").replace(b'"schema": %d' % SCHEMA_VERSION, b'"schema": 99')
    fs.pipe_file(f"{root}/{foreign.name}.json", later)
    assert prune(url, 0) == []
    wastes = prune(url, 0, quarantined=True)
    assert removed(wastes) == [f"{cut.name}.json", cut.data, f"{damaged.name}.json", damaged.data]
    assert [w.entry for w in wastes if not w.removable] == [f"{foreign.name}.json", foreign.data]
    buffer = read(url)
    assert buffer.shards == (name(9),) and list(buffer.quarantined) == [foreign.name]


def test_what_cannot_be_removed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    described = write(tmp_path, 0)
    (tmp_path / f"{name(0)}.json").unlink()

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(UserError, match=f"cannot remove {described.data} from .*Permission denied"):
        prune(tmp_path, 0)
