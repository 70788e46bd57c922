"""Buffers on a real S3 server, whoever is killed: writers, pushers, or the server."""

import contextlib
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import s3fs
from buffer_samples import HEADER, columns, name, write
from s3_server import S3Server
from test_buffer_crashes import harmful, say, start

from orl_ldm.buffer import BufferWriter, read, remote_store, verify
from orl_ldm.buffer import transfer as moving
from orl_ldm.buffer.prune import prune
from orl_ldm.buffer.schema import CodecName
from orl_ldm.buffer.transfer import transfer
from orl_ldm.cli.main import app, main
from orl_ldm.errors import UserError
from orl_ldm.policy import load_policy

BOTH = pytest.mark.parametrize("codec_name", ["hdf5", "zarr"])
UNITS: dict[CodecName, range] = {"hdf5": range(0, 18, 3), "zarr": range(0, 9, 3)}  # a Zarr shard has 15 objects

#: Forks a child for each line that it reads, tells its process id, and its status in the end. The child brings what is
#: missing to the target, as a resumed pusher (arguments: a folder, target, codec) or collector (no folder) does.
FORKING = """
import os, sys
import s3fs
from buffer_samples import HEADER, name, write
from orl_ldm.buffer import BufferWriter
from orl_ldm.buffer.transfer import transfer
source, target, codec, stop = sys.argv[1:]
print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        if source:
            transfer([source], target + line.strip())
        else:
            done = BufferWriter(target + line.strip(), HEADER).published()
            for unit in range(0, int(stop), 3):
                if name(unit) not in done:
                    write(target + line.strip(), unit, codec)
        os._exit(0)
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    one = S3Server(tmp_path_factory.mktemp("s3"))
    with pytest.MonkeyPatch.context() as patch:
        for key, value in one.environment.items():
            patch.setenv(key, value)
        patch.setattr(remote_store, "PAUSES", (0.01, 0.01))
        patch.setattr(s3fs.S3FileSystem, "retries", 2)
        s3fs.S3FileSystem.clear_instance_cache()
        one.start()
        yield one
        one.kill()
        s3fs.S3FileSystem.clear_instance_cache()


def assert_whole(url: str | Path, units: range) -> None:
    """The same rows as undisturbed, once."""
    buffer = read(url, strict=True)
    assert buffer.shards == tuple(map(name, units))
    for key, column in buffer.columns.items():
        np.testing.assert_array_equal(column, np.concatenate([columns(unit)[key] for unit in units]))


@BOTH
def test_what_is_written_to_s3_is_read_and_pulled_from_it(
    tmp_path: Path, server: S3Server, codec_name: CodecName
) -> None:
    url, units = server.url(f"written/{codec_name}"), UNITS[codec_name]
    assert BufferWriter(url, HEADER).published() == set()
    with pytest.raises(UserError, match=f"there is no buffer {url}; check the path"):
        read(url)
    for unit in units:
        write(url, unit, codec_name)
    assert_whole(url, units)
    assert verify(url) == []
    transfer([url], tmp_path)
    assert_whole(tmp_path, units)
    sent = {p.relative_to(tmp_path): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    kept = server.files(f"written/{codec_name}")
    assert sent == {path.relative_to(kept): path.read_bytes() for path in kept.rglob("*") if path.is_file()}


@pytest.mark.timeout(900)  # a minute or so, but many processes are started on a busy machine
@pytest.mark.parametrize(
    ("role", "codec_name", "kills"),
    [("push", "hdf5", 3), ("push", "zarr", 3), ("write", "hdf5", 6), ("write", "zarr", 6)],
)
def test_a_process_killed_at_any_moment_loses_nothing_on_resume(
    tmp_path: Path, server: S3Server, role: str, codec_name: CodecName, kills: int
) -> None:
    units = UNITS[codec_name]
    chance = random.Random(f"{role} {codec_name}")
    if role == "push":
        for unit in units:
            write(tmp_path, unit, codec_name)
    target = server.url(f"{role}-{codec_name}")
    process = start(FORKING, tmp_path if role == "push" else "", target, codec_name, units.stop)
    assert say(process) == "ready"

    def run(where: str, lifetime: float | None = None) -> int:
        assert process.stdin is not None
        process.stdin.write(f"{where}\n")
        process.stdin.flush()
        child = int(say(process))
        if lifetime is not None:
            time.sleep(lifetime)
            with contextlib.suppress(ProcessLookupError):  # it was faster
                os.kill(child, signal.SIGKILL)
        return int(say(process))

    def took(where: str, lifetime: float | None = None) -> tuple[int, float]:
        began = time.monotonic()
        return run(where, lifetime), time.monotonic() - began

    status, duration = took("/undisturbed")
    assert status == 0
    seen: dict[str, set[str]] = {}  # what was published in each target
    where, killed, halfway = "/0", 0, 0
    while killed < kills:
        status, seconds = took(where, chance.uniform(0.3, 0.9) * duration)
        if status == 0 and where not in seen:  # a whole run that no kill has reached: the machine is less busy now
            duration = min(duration, seconds)
        killed += status == signal.SIGKILL
        published = BufferWriter(target + where, HEADER).published()
        assert seen.get(where, set()) <= published
        seen[where] = published
        halfway += 0 < len(published) < len(units)
        if published:
            assert set(read(target + where, strict=True).shards) == published
            assert harmful_but_gaps(target + where) == []
        if status == 0:
            where = f"/{len(seen)}"
        assert len(seen) < 2 * kills  # a kill that never hits is no test
    assert halfway or role == "push"  # (which may publish all at its end): kills before any shard are no test
    for where in seen:
        assert run(where) == 0
        assert_whole(target + where, units)
        assert not {str(problem) for problem in verify(target + where) if "repeats" in str(problem)}
        assert harmful(target + where) == []
    process.kill()
    process.wait()


def harmful_but_gaps(url: str) -> list[str]:
    """Several shards are under way at a time, so that a killed pusher may leave out some between others."""
    return [problem for problem in harmful(url) if "is missing before" not in problem]


@BOTH
def test_a_server_that_goes_away_is_said_in_a_sentence_and_the_same_call_goes_on(
    tmp_path: Path, server: S3Server, codec_name: CodecName, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moving, "FETCHES", 2)  # when one shard has arrived, the next is on its way
    url, units = server.url(f"dying/{codec_name}"), UNITS[codec_name]
    for unit in units:
        write(tmp_path / "here", unit, codec_name)

    def dying(done: int, total: int) -> None:
        if done > total // 4:
            server.kill()

    with pytest.raises(UserError, match=rf"cannot copy shard .* to {url}: .*{server.address}.* run the same command"):
        transfer([tmp_path / "here"], url, dying)
    with pytest.raises(UserError, match=rf"^{url} does not answer \(.*{server.address}"):
        read(url)
    with pytest.raises(UserError, match=rf"^{url} does not answer \("):
        write(url, 36, codec_name)
    server.start()
    arrived = read(url, strict=True).shards
    assert 0 < len(arrived) < len(units)
    assert transfer([tmp_path / "here"], url).present == len(arrived)
    assert_whole(url, units)

    def dying_again(done: int, total: int) -> None:
        if done:
            server.kill()

    with pytest.raises(UserError, match=rf"cannot copy shard .* of {url} to {tmp_path}/there: .* run the same command"):
        transfer([url], tmp_path / "there", dying_again)
    server.start()
    transfer([url], tmp_path / "there")
    assert_whole(tmp_path / "there", units)


@BOTH
def test_leftovers_on_s3_are_pruned_when_they_are_old_and_damage_when_asked(
    server: S3Server, codec_name: CodecName
) -> None:
    url = server.url(f"pruned/{codec_name}")
    orphan, damaged, _ = (write(url, unit, codec_name) for unit in (3, 6, 0))
    objects = s3fs.S3FileSystem()
    objects.rm(f"{url}/{orphan.name}.json")
    objects.pipe_file(f"{url}/{damaged.name}.json", b"{")
    assert [(waste.entry, waste.removable) for waste in prune(url, 3600)] == [(orphan.data, False)]
    assert [waste.entry for waste in prune(url, 0)] == [orphan.data]
    assert [waste.entry for waste in prune(url, 0, quarantined=True)] == [f"{damaged.name}.json", damaged.data]
    assert read(url, strict=True).shards == (name(0),) and verify(url) == []


def test_a_collector_writes_straight_to_s3_and_a_learner_reads_from_it(
    tmp_path: Path, server: S3Server, ldm_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).resolve().parents[2])
    url = server.url("collected")
    values = {
        "name": "tiny", "ldm.id": ldm_folder, "data.size": 32, "sampler.nfe_max": 3,
        "collect.images": 4, "collect.rollouts": 2, "collect.unit_images": 2, "collect.codec": "zarr",
        "collect.out": url, "train.buffers": f'["{url}"]', "train.out": tmp_path / "train",
        "train.critics.epochs": 1, "train.critics.steps": 2, "train.critics.batch_size": 8,
    }  # fmt: skip
    settings = [part for key, value in values.items() for part in ("--set", f"{key}={value}")]
    for command in (["collect", "demo", *settings], ["buffer", "verify", url], ["train", "demo", *settings]):
        with pytest.raises(SystemExit) as stopped:
            main(lambda arguments=command: app(arguments))
        assert not stopped.value.code
    assert load_policy(tmp_path / "train" / "policy")[1]["episodes"] == 4 * 2


def test_wrong_keys_are_said(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b" * 40)
    s3fs.S3FileSystem.clear_instance_cache()
    try:
        with pytest.raises(UserError, match=r"cannot list the buffer s3://team/x: .*; check the path and its rights"):
            read("s3://team/x")
    finally:
        s3fs.S3FileSystem.clear_instance_cache()
