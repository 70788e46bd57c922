"""`orl-ldm buffer` as its user meets it."""

import importlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.filesize import decimal

from orl_ldm.buffer import read
from orl_ldm.cli.main import app, main
from orl_ldm.reward import SETTINGS, compose

sys.path.append(str(Path(__file__).resolve().parents[1] / "buffer"))
samples = importlib.import_module("buffer_samples")
HEADER, name, write = samples.HEADER, samples.name, samples.write

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """(exit status, everything printed) of `orl-ldm buffer ARGUMENTS`."""

    def call(*arguments: object) -> tuple[int, str]:
        with pytest.raises(SystemExit) as stopped:
            main(lambda: app(["buffer", *map(str, arguments)]))
        printed = capsys.readouterr()
        return int(stopped.value.code or 0), " ".join((printed.out + printed.err).split())

    return call


@pytest.fixture
def buffer(tmp_path: Path) -> Path:
    """Three shards of two behaviours."""
    write(tmp_path / "a", 0), write(tmp_path / "a", 3, "zarr")
    write(tmp_path / "a", 6, header=replace(HEADER, behavior_id="policy-1"))
    return tmp_path / "a"


def size(buffer: Path) -> str:
    """Of all data, as the sidecars declare it."""
    return decimal(sum(json.loads(path.read_text())["shard"]["bytes"] for path in buffer.glob("*.json")))


def test_ls_shows_every_shard_and_names_bad_sidecars(buffer: Path, run: Run) -> None:
    (buffer / f"{name(3)}.json").write_text("{")
    status, printed = run("ls", buffer)
    assert status == 0
    one, other = (next(buffer.glob(f"{name(unit)}*.h5")).stat().st_size for unit in (0, 6))
    assert f"{name(0)} 6 3 {decimal(one)} hdf5 uniform" in printed
    assert f"{name(6)} 6 3 {decimal(other)} hdf5 policy-1" in printed
    assert "damaged or edited" in printed and f"3 shards 12 6 {decimal(one + other)}" in printed


def test_info_sums_up(buffer: Path, run: Run) -> None:
    found = read(buffer)
    settings = {"balanced": "0.2 psnr + 0.2 ssim + 0.5 lpips + 0.1 nfe", "paper": "0.4 psnr + 0.3 ssim + 0.2 lpips"}
    for prefer, weights in settings.items():
        status, printed = run("info", buffer, *(["--prefer", prefer] if prefer != "balanced" else []))
        assert status == 0
        for fact in ("shards 3", "transitions 18", "episodes 9", "forest 9", "uniform 42 6", "policy-1 42 3", weights):
            assert fact in printed
        rewards = sorted(compose(found.terms[found.terminals], SETTINGS[prefer], HEADER.nfe_max))
        for number in (sum(rewards) / 9, rewards[0], rewards[4], rewards[-1]):
            assert f"{number:.4g}" in printed.partition("per episode")[2]
        assert "█" in printed.partition("reward from")[2]
    assert run("info", buffer, "--prefer", "cheap")[0] == 2
    assert run("info", buffer.parent)[0] == 2


def test_a_hostile_buffer_does_not_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, 0, header=replace(HEADER, behavior_id="[red]\x1b]0;owned\x07", ldm_id="\x1b[2J"))
    for command in ("ls", "info"):
        with pytest.raises(SystemExit):
            main(lambda command=command: app(["buffer", command, str(tmp_path)]))
        printed = capsys.readouterr().out
        assert "[red]" in printed and "\x1b]" not in printed and "\x1b[2J" not in printed and "\x07" not in printed


def test_verify_names_what_is_wrong_by_its_exit_status_too(buffer: Path, run: Run) -> None:
    assert run("verify", buffer) == (0, f"{buffer}: every shard is sound")
    for path in buffer.glob(f"{name(3)}*"):
        path.rename(buffer.parent / path.name)
    status, printed = run("verify", buffer)
    assert status == 1 and f"{buffer}: shard {name(3)} is missing before {name(6)}" in printed
    next(buffer.glob(f"{name(0)}*.h5")).write_bytes(b"")
    status, printed = run("verify", buffer)
    assert status == 1 and f"shard {name(0)} has 0 bytes of data where" in printed


def test_push_pull_merge_and_convert_say_what_they_did(tmp_path: Path, buffer: Path, run: Run) -> None:
    assert f"3 shards ({size(buffer)}) in memory://shelf" in run("push", buffer, "memory://shelf")[1]
    assert "0 shards (0 bytes) in memory://shelf; 3 were there already" in run("push", buffer, "memory://shelf")[1]
    assert run("pull", "memory://shelf", tmp_path / "b")[0] == 0
    write(tmp_path / "c", 9)
    assert "4 shards" in run("merge", tmp_path / "b", tmp_path / "c", tmp_path / "all")[1]
    assert "4 shards" in run("convert", tmp_path / "all", tmp_path / "zarr", "--codec", "zarr")[1]
    assert run("verify", tmp_path / "all", tmp_path / "zarr")[0] == 0
    next(buffer.glob("*.h5")).write_bytes(b"x")
    status, printed = run("push", buffer, tmp_path / "d")
    assert status == 1 and "not copied: shard" in printed and "2 shards" in printed
    write(tmp_path / "e", 0, header=replace(HEADER, nfe_max=9))
    status, printed = run("merge", tmp_path / "c", tmp_path / "e", tmp_path / "f")
    assert (status, "its nfe_max is 9, not 20; keep them in separate buffers" in printed) == (2, True)
    assert not (tmp_path / "f").exists()


def test_prune_says_what_goes_and_export_what_came(tmp_path: Path, buffer: Path, run: Run) -> None:
    (buffer / f"{name(3)}.json").unlink()
    assert "keep" in run("prune", buffer)[1]
    assert "would remove 1 of 1 entries" in run("prune", buffer, "--dry-run", "--min-age", "0")[1]
    status, printed = run("prune", buffer, "--min-age", "0")
    assert status == 0 and f"remove {name(3)}." in printed and "removed 1 of 1" in printed
    assert not list(buffer.glob(f"{name(3)}*"))
    out = tmp_path / "out.parquet"
    assert run("export", buffer, out, "--format", "parquet") == (0, f"12 transitions in 6 episodes in {out}")
    assert run("export", buffer, out, "--format", "parquet")[0] == 2
    next(buffer.glob(f"{name(0)}*.h5")).write_bytes(b"x")
    arguments = (buffer, tmp_path / "rest.parquet", "--format", "parquet", "--prefer", "speed=1")
    status, printed = run("export", *arguments)
    assert status == 1 and f"left out: shard {name(0)}" in printed and "6 transitions in 3 episodes" in printed


def test_every_command_takes_a_local_path_as_it_is(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("x::y/buf", "[best] #1/50%", "机场"):
        write(path, 0)
        for command in ("ls", "info", "verify", "prune"):
            status, printed = run(command, path)
            assert status == 0 and (path in printed or command == "prune")
        for command in (("push", path, f"{path}-1"), ("pull", path, f"{path}-2"), ("merge", path, f"{path}-3")):
            status, printed = run(*command)
            assert status == 0 and f"1 shards ({size(tmp_path / path)}) in {command[-1]}" in printed
        assert run("convert", path, f"{path}-4", "--codec", "zarr")[0] == 0
        assert run("export", path, f"{path}.parquet", "--format", "parquet")[0] == 0
        assert all((tmp_path / f"{path}-{number}" / f"{name(0)}.json").is_file() for number in range(1, 5))
        assert (tmp_path / f"{path}.parquet").is_file()


@pytest.mark.slow
def test_an_interrupted_push_goes_on(tmp_path: Path) -> None:
    units = range(0, 450, 3)
    for unit in units:
        write(tmp_path / "a", unit)
    command = [sys.executable, "-m", "orl_ldm.cli.main", "buffer", "push", str(tmp_path / "a"), str(tmp_path / "b")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and len(list((tmp_path / "b").glob("*.json"))) < 3:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate()
    assert (process.returncode, errors) == (130, "interrupted; run the same command again to go on where it stopped\n")
    arrived = read(tmp_path / "b", strict=True).shards
    assert 3 <= len(arrived) < len(units)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"{len(units) - len(arrived)} shards" in done.stdout and f"{len(arrived)} were there already" in done.stdout
    assert read(tmp_path / "b", strict=True).shards == tuple(map(name, units))
