"""Writers that are killed, that run twice, or that run out of room."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from buffer_samples import HEADER, columns, name, write

from orl_ldm.buffer import BufferWriter, read, verify
from orl_ldm.buffer.local_store import Entry, LocalStore
from orl_ldm.buffer.schema import CodecName
from orl_ldm.errors import UserError

UNITS = range(0, 45, 3)

#: Collects what is missing, as a resumed collector does. Arguments: folder, codec, noise.
COLLECT = """
import sys
from buffer_samples import HEADER, name, write
from orl_ldm.buffer import BufferWriter
folder, codec, noise = sys.argv[1], sys.argv[2], int(sys.argv[3])
todo = [unit for unit in range(0, 45, 3) if name(unit) not in BufferWriter(folder, HEADER).published()]
print("ready", flush=True)
sys.stdin.readline()
for unit in todo:
    write(folder, unit, codec, noise)
print("done", flush=True)
"""

#: Kills itself at every place in turn where the disk is about to change. Arguments: folder, codec, stride.
DIE_EVERYWHERE = """
import os, signal, sys
from pathlib import Path
from buffer_samples import write
import orl_ldm.buffer

folder, codec, stride = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])

def dying(function, clock):
    def call(*arguments, **options):
        clock[0] -= 1
        if clock[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return call

for moment in range(0, 10_000, stride):
    child = os.fork()
    if child == 0:
        clock = [moment]
        for owner, called in ((os, "fsync"), (Path, "replace"), (Path, "mkdir"), (Path, "open")):
            setattr(owner, called, dying(getattr(owner, called), clock))
        write(folder / str(moment), 0, codec)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
print(moment, flush=True)
"""


#: Kills a forked writer at 50 random moments, each going on where the last one was killed; begins anew when all is
#: published. Arguments: folder, codec. Prints the folders, and whatever a reader finds wrong after a kill.
KILL_FIFTY_TIMES = """
import os, random, signal, sys, time
from pathlib import Path
from buffer_samples import HEADER, name, write
from orl_ldm.buffer import BufferWriter, read, verify

folder, codec = Path(sys.argv[1]), sys.argv[2]
chance, units, rounds = random.Random(codec), range(0, 45, 3), 0
write(folder / "warm", 0, codec)
seen = set()
for kill in range(50):
    buffer = folder / str(rounds)
    writer = os.fork()
    if writer == 0:
        for unit in units:
            if name(unit) not in BufferWriter(buffer, HEADER).published():
                write(buffer, unit, codec)
        os._exit(0)
    time.sleep(chance.uniform(0, 0.05))
    os.kill(writer, signal.SIGKILL)
    os.waitpid(writer, 0)
    published = BufferWriter(buffer, HEADER).published()
    if not seen <= published:
        print("lost", seen - published)
    seen = published
    if published:
        for problem in verify(buffer):
            if not problem.harmless:
                print(problem)
        if set(read(buffer, strict=True).shards) != published:
            print("unread")
    if len(published) == len(units):
        rounds, seen = rounds + 1, set()
for unit in units:
    write(folder / str(rounds), unit, codec)
print(rounds + 1, flush=True)
"""

#: Eight processes share the work of one buffer; two of them have the same part. Arguments: folder, codec.
EIGHT = """
import os, sys
from buffer_samples import write
folder, codec = sys.argv[1], sys.argv[2]
write(folder + "-warm", 0, codec)
gate, opened = os.pipe()
for number in range(8):
    if os.fork() == 0:
        os.close(opened)
        os.read(gate, 1)  # all of them at once, when the other end closes
        for unit in range(0, 126, 3):
            if unit // 3 % 7 == number % 7:
                write(folder, unit, codec)
        os._exit(0)
os.close(opened)
print(*(os.wait()[1] for _ in range(8)), flush=True)
"""


def start(script: str, *arguments: object) -> "subprocess.Popen[str]":
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def say(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def go(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def harmful(folder: str | Path) -> list[str]:
    return [str(problem) for problem in verify(folder) if not problem.harmless]


@pytest.mark.parametrize("codec_name", ["hdf5", "zarr"])
def test_a_writer_killed_at_any_moment_loses_nothing_on_resume(tmp_path: Path, codec_name: CodecName) -> None:
    chance = random.Random(codec_name)
    folder = tmp_path / "buffer"
    for _ in range(3):
        process = start(COLLECT, folder, codec_name, 0)
        assert say(process) == "ready"
        go(process)
        time.sleep(chance.uniform(0.0, 0.06))
        process.send_signal(signal.SIGKILL)
        process.wait()
        if BufferWriter(folder, HEADER).published():
            assert harmful(folder) == [] and not read(folder).quarantined
    process = start(COLLECT, folder, codec_name, 0)
    go(process)
    assert process.wait() == 0
    resumed = read(folder, strict=True)
    assert resumed.shards == tuple(map(name, UNITS))
    for key, column in resumed.columns.items():  # the same rows as undisturbed
        np.testing.assert_array_equal(column, np.concatenate([columns(unit)[key] for unit in UNITS]))
    assert harmful(folder) == []  # a kill between publishing and sweeping may leave a staged file, which is noted


@pytest.mark.parametrize("codec_name", ["hdf5", "zarr"])
def test_fifty_kills_lose_nothing_that_was_published(tmp_path: Path, codec_name: CodecName) -> None:
    process = start(KILL_FIFTY_TIMES, tmp_path, codec_name)
    rounds = say(process)
    assert rounds.isdigit() and process.wait() == 0, rounds
    for number in range(int(rounds)):
        whole = read(tmp_path / str(number), strict=True)
        assert whole.shards == tuple(map(name, UNITS))
        for key, column in whole.columns.items():
            np.testing.assert_array_equal(column, np.concatenate([columns(unit)[key] for unit in UNITS]))


@pytest.mark.parametrize("codec_name", ["hdf5", "zarr"])
def test_eight_processes_write_what_one_would(tmp_path: Path, codec_name: CodecName) -> None:
    process = start(EIGHT, tmp_path / "buffer", codec_name)
    assert say(process) == "0 0 0 0 0 0 0 0" and process.wait() == 0
    for unit in range(0, 126, 3):
        write(tmp_path / "alone", unit, codec_name)
    files = [
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (tmp_path / "buffer", tmp_path / "alone")
    ]
    assert files[0] == files[1]


@pytest.mark.parametrize(("codec_name", "stride"), [("hdf5", 1), ("zarr", 17)])
def test_at_every_single_step_a_shard_is_whole_or_not_there(tmp_path: Path, codec_name: CodecName, stride: int) -> None:
    process = start(DIE_EVERYWHERE, tmp_path, codec_name, stride)
    moments = int(say(process))
    assert process.wait() == 0 and moments > 10
    for moment in range(0, moments, stride):
        folder = tmp_path / str(moment)
        published = BufferWriter(folder, HEADER).published()
        assert published in (set(), {name(0)})
        if folder.exists():
            assert harmful(folder) == []
        write(folder, 0, codec_name)
        assert read(folder, strict=True).shards == (name(0),)
        assert verify(folder) == []  # the next writer cleaned up


def test_what_a_living_writer_stages_is_not_swept_away(tmp_path: Path) -> None:
    store = LocalStore("x", tmp_path)
    with store.staging(name(0)) as stage:
        store.sweep(name(0))
        assert stage.exists()
        write(tmp_path, 0)
        assert stage.exists()
    assert not stage.exists() and verify(tmp_path) == []


def test_processes_that_write_the_same_work_at_once_do_no_harm(tmp_path: Path) -> None:
    """They even measured different seconds and chose different codecs: each shard is wholly of one of them."""
    writers = [start(COLLECT, tmp_path, codec_name, noise) for noise, codec_name in enumerate(("hdf5", "hdf5", "zarr"))]
    assert [say(writer) for writer in writers] == ["ready"] * 3
    for writer in writers:
        go(writer)
    assert [writer.wait() for writer in writers] == [0] * 3
    buffer = read(tmp_path, strict=True)
    assert buffer.shards == tuple(map(name, UNITS))
    for index, unit in enumerate(UNITS):
        rows = buffer.observations[6 * index : 6 * index + 6]
        assert any(np.array_equal(rows, columns(unit, noise=noise)["observations"]) for noise in range(3))
    assert harmful(tmp_path) == [] and not list(tmp_path.glob(".tmp-*"))


def test_a_shard_published_while_a_reader_lists_the_folder_is_not_taken_for_bad(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The listing that a reader gets may have passed the place of the data before they came, but not the sidecar's."""
    write(tmp_path, 0)
    original, late = LocalStore.entries, write(tmp_path / "elsewhere", 3)

    def entries(store: LocalStore) -> dict[str, Entry] | None:
        found = original(store)
        for path in (tmp_path / "elsewhere").glob("*"):
            path.rename(tmp_path / path.name)
        return found if found is None or late.data not in found else {k: v for k, v in found.items() if k != late.data}

    monkeypatch.setattr(LocalStore, "entries", entries)
    buffer = read(tmp_path)
    assert buffer.shards == (name(0),) and not buffer.quarantined


#: Writes shard 3 under a limit, and prints what the user is told. Arguments: folder, codec, most bytes of a file.
LIMITED = """
import resource, sys
from buffer_samples import write
from orl_ldm.errors import UserError
folder, codec, limit = sys.argv[1], sys.argv[2], int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    write(folder, 3, codec)
except UserError as error:
    print(error, flush=True)
"""


@pytest.mark.parametrize(("codec_name", "limit"), [("hdf5", 3000), ("zarr", 90), ("zarr", 600)])
def test_a_write_that_is_cut_short_leaves_nothing(tmp_path: Path, codec_name: CodecName, limit: int) -> None:
    write(tmp_path, 0, codec_name)
    before = sorted(tmp_path.rglob("*"))
    process = start(LIMITED, tmp_path, codec_name, limit)
    assert f"cannot write shard {name(3)} to {tmp_path}: File too large; make room" in say(process)
    assert process.wait() == 0
    assert sorted(tmp_path.rglob("*")) == before and verify(tmp_path) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"a small tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_leaves_the_published_shards_and_nothing_else(small_disk: Path) -> None:
    published = []
    with pytest.raises(UserError, match=r"No space left on device; make room, .* published shards are kept"):
        for unit in range(0, 300, 3):
            write(small_disk, unit)
            published.append(name(unit))
    assert published and read(small_disk, strict=True).shards == tuple(published)
    assert verify(small_disk) == []
