"""Reading parts of a buffer, within a memory limit, and finding lost shards."""

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from buffer_samples import HEADER, columns, images, name, write

from orl_ldm.buffer import BufferWriter, ImageRef, Transitions, hdf5, mapped_arrays, read
from orl_ldm.buffer.coverage import missing, range_name
from orl_ldm.buffer.selection import Selection
from orl_ldm.errors import UserError


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Two shards, of two behaviours; odd images are rivers."""
    for unit, behavior in ((0, "uniform"), (3, "policy-1")):
        header = replace(HEADER, behavior_id=behavior)
        data = columns(unit, header=header)
        refs = [ImageRef(ref.image_id, ref.name, ("forest", "river")[ref.image_id % 2]) for ref in images(data)]
        BufferWriter(tmp_path / "buffer", header).write(name(unit), data, refs)
    return tmp_path / "buffer"


def last_rows(transitions: Transitions) -> list[int]:
    return (transitions.episode_bounds[:, 1] - 1).tolist()


def test_a_scene(scenes: Path) -> None:
    found = read(scenes, select=Selection(scenes=("river",)))
    assert found.image_id[last_rows(found)].tolist() == [1, 3, 5]
    whole = read(scenes)
    np.testing.assert_array_equal(found.observations, whole.observations[whole.image_id % 2 == 1])


def test_a_behaviour(scenes: Path) -> None:
    found = read(scenes, select=Selection(behaviors=("policy-1",)))
    assert found.shards == (name(3),)
    np.testing.assert_array_equal(found.observations, columns(3)["observations"])


def test_quality_by_terms(scenes: Path) -> None:
    psnr = read(scenes).terms[last_rows(read(scenes)), 0]
    found = read(scenes, select=Selection(at_least={"psnr": 0.5}))
    assert np.array_equal(found.terms[last_rows(found), 0], psnr[psnr >= 0.5]) and 0 < len(found) < len(read(scenes))
    found = read(scenes, select=Selection(at_most={"psnr": 0.5}))
    assert np.array_equal(found.terms[last_rows(found), 0], psnr[psnr <= 0.5])


def test_what_cannot_be_selected_is_said(scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no episode of .* passes .*'lake'.*relax the filters"):
        read(scenes, select=Selection(scenes=("lake",)))
    with pytest.raises(UserError, match="logs no term 'speed' to select by; choose of psnr"):
        read(scenes, select=Selection(at_least={"speed": 1}))


def test_columns_beyond_the_memory_limit_are_mapped_and_equal(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORL_LDM_CACHE", str(tmp_path / "cache"))
    (next(scenes.glob(f"{name(3)}*.h5"))).rename(tmp_path / "lost")
    write(scenes, 6)
    whole, mapped = read(scenes), read(scenes, memory_limit=100)
    for key, column in whole.columns.items():
        np.testing.assert_array_equal(mapped.columns[key], column)
    assert mapped.shards == (name(0), name(6))
    assert isinstance(mapped.observations.base, np.memmap) or mapped.observations.base is not None
    assert not any(path.is_file() for path in (tmp_path / "cache").rglob("*"))  # the files have no names


def test_no_room_to_map_columns_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"cannot map .* GiB below .*; make room, or set ORL_LDM_CACHE"):
        mapped_arrays.empty((3,), np.float32, tmp_path / "file")
    with pytest.raises(UserError, match=r"GiB of memory; set memory_limit"):
        mapped_arrays.empty((2**50,), np.float32)


def test_a_file_system_that_cannot_set_room_aside_is_written_to_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTSUP):
        monkeypatch.setattr(os, "posix_fallocate", failing(number))
        mapped = mapped_arrays.empty((3, 5), np.float32, tmp_path)
        mapped[:] = 7
        assert (mapped == 7).all() and mapped.shape == (3, 5)
    monkeypatch.setattr(os, "posix_fallocate", failing(errno.ENOSPC))
    with pytest.raises(UserError, match=r"cannot map .* No space left on device"):
        mapped_arrays.empty((3, 5), np.float32, tmp_path)


def failing(number: int) -> Callable[..., None]:
    def fail(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def test_behaviours_are_counted_by_episodes_that_are_read(tmp_path: Path) -> None:
    overlapping = columns(1, (2, 3, 2, 4))
    BufferWriter(tmp_path, HEADER).write("wide", overlapping, images(overlapping))
    write(tmp_path, 3), write(tmp_path, 6, "zarr", header=replace(HEADER, behavior_id="policy-1"))
    damaged = write(tmp_path, 9)
    (tmp_path / damaged.data).write_bytes(b"x")
    found = read(tmp_path)
    assert found.behaviors == {("uniform", 42): 5, ("policy-1", 42): 3}
    assert list(found.quarantined) == [name(9)] and len(found.episode_bounds) == 8


@pytest.mark.parametrize(
    ("names", "lost"),
    [
        (["a-000000-000004", "a-000004-000008", "a-000008-000009"], []),
        (["a-000000-000004", "a-000008-000012"], ["a-000004-000008"]),
        (["a-000000-000004", "b-000000-000004", "b-000012-000016"], ["b-000004-000012"]),
        (["a-000000-000008", "a-000002-000004", "a-000009-000010"], ["a-000008-000009"]),
        (["a-000004-000008", "other", "a-1-2"], ["a-000000-000004"]),
        (["a-000000-1000000", "a-1000004-1000008"], ["a-1000000-1000004"]),
        ([range_name("a", 0, 4, 8), range_name("a", 4, 8, 8)], []),
        ([range_name("a", 0, 4, 12)], ["a-000004-000012"]),
        (
            [range_name("a", 4, 8, 12), range_name("a", 12, 14, 14)],
            ["a-000000-000004", "a-000008-000012", "a-000000-000012"],
        ),
    ],
)
def test_a_lost_shard_is_missed(names: list[str], lost: list[str]) -> None:
    assert [gap for gap, _ in missing(names)] == lost


def test_a_shard_that_does_not_fit_in_memory_is_not_taken_for_damaged(
    scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*arguments: object) -> None:
        raise MemoryError

    monkeypatch.setattr(hdf5, "_read", no_room)
    with pytest.raises(UserError, match="GiB of memory; set memory_limit"):
        read(scenes)
