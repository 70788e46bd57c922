"""The command line in the surroundings that users have: disks, encodings, homes, and names of any kind."""

import errno
import getpass
import json
import os
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from safetensors import SafetensorError

from orl_ldm.cli.environment import CACHES, name_user, place_caches
from orl_ldm.cli.loop import quoted
from orl_ldm.cli.main import app, main
from orl_ldm.cli.progress import methods_bar
from orl_ldm.cli.stages import later_rounds
from orl_ldm.config import cache_folder, override, read_toml
from orl_ldm.errors import UserError
from orl_ldm.pipeline import load_pipeline
from orl_ldm.terminal import say

ROOT = Path(__file__).resolve().parents[2]
DEMO = str(ROOT / "pipelines" / "demo.toml")
NAMES = ["[best]", "x[/a]/y", ":smile:", "[red]a", "with space", "機場", "#1", "100%d", "a::b", "~b", "back\\slash"]


def printed_by(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """(exit status, what is printed to stderr) of `orl-ldm ARGUMENTS`."""
    with pytest.raises(SystemExit) as stopped:
        main(lambda: app(list(arguments)))
    return int(stopped.value.code or 0), capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "setting"),
    [
        ("collect", "collect.out"),
        ("train", "train.out"),
        ("report", "evaluate.out"),
        ("pretrain", "out"),
    ],
)
def test_a_file_in_the_way_of_results_is_said_before_work(
    tmp_path: Path, command: str, setting: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    (tmp_path / "file").write_text("")
    more = ["--set", f"train.buffers={quoted([str(tmp_path)])}"] if command == "train" else []
    pipeline = "pretrain" if command == "pretrain" else "demo"
    status, said = printed_by(command, pipeline, *more, "--set", f"{setting}={tmp_path / 'file'}", capsys=capsys)
    assert status == 2 and len(said.splitlines()) == 1
    assert "is a file" in said or "there is no evaluation in" in said


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "/disk/a[/b]"),
        PermissionError(errno.EROFS, "Read-only file system", "/disk/a[/b]"),
        ConnectionError("the store at /disk/a[/b] does not answer"),
        SafetensorError("Error while serializing /disk/a[/b]: No space left on device"),
    ],
)
def test_errors_of_disks_end_in_one_sentence(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(SystemExit) as stopped:
        main(fail)
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and said.startswith("error: ") and "/disk/a[/b]" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("name", NAMES)
def test_names_are_printed_as_they_are(name: str) -> None:
    output = StringIO()
    console = Console(file=output, width=60)
    say(console, f"policy in {name}/train")
    with methods_bar(console) as advance:
        advance(name, 1, 2)
    assert f"policy in {name}/train\n" in output.getvalue()
    assert f"{name} " in output.getvalue().splitlines()[-1]


def test_names_cannot_steer_the_terminal() -> None:
    output = StringIO()
    say(Console(file=output), "a\x1b[2Jb\rc")
    assert output.getvalue() == "a\N{REPLACEMENT CHARACTER}[2Jb\N{REPLACEMENT CHARACTER}c\n"


@pytest.mark.parametrize("name", NAMES)
def test_paths_of_any_kind_are_settings(name: str) -> None:
    keys = ("collect.out", "collect.policy", "train.out", "evaluate.out", "data.source", "ldm.id")
    more = [f"train.buffers={quoted([name])}", f"evaluate.spandrel={quoted([name])}"]
    pipeline = load_pipeline(DEMO, [*(f"{key}={name}" for key in keys), *more])
    found = [
        pipeline.collect.out, pipeline.collect.policy, pipeline.train.out, pipeline.evaluate.out,
        pipeline.data.source, pipeline.ldm.id, *pipeline.train.buffers, *pipeline.evaluate.spandrel,
    ]  # fmt: skip
    assert found == [name] * 8


@pytest.mark.parametrize("text", ["2024", "2024-05-01", "s3://bucket/a", "owner/name"])
def test_names_that_look_like_something_else_are_names(text: str) -> None:
    assert load_pipeline(DEMO, [f"train.out={text}"]).train.out == text


def test_a_tilde_is_the_home_folder_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    keys = ("collect.out", "train.out", "data.source", "ldm.id", "collect.policy")
    pipeline = load_pipeline(DEMO, [f"{key}=~/a b" for key in keys])
    found = {pipeline.collect.out, pipeline.train.out, pipeline.data.source, pipeline.ldm.id, pipeline.collect.policy}
    assert found == {f"{tmp_path}/a b"}
    assert pipeline.train.buffers == (f"{tmp_path}/a b",)
    (tmp_path / "mine.toml").write_text(Path(DEMO).read_text(encoding="utf-8"), encoding="utf-8")
    assert load_pipeline("~/mine.toml").name == "demo"


def test_later_rounds_are_found_beside_a_folder_with_brackets(tmp_path: Path) -> None:
    later = tmp_path / "[a]*-round1"
    (later / "policy").mkdir(parents=True)
    (later / "policy" / "policy.json").write_text("")
    assert later_rounds(tmp_path / "[a]*") == [str(later)]


@pytest.mark.parametrize(
    ("encoding", "minus"), [("latin-1", "-0.25 -> ?"), ("ascii", "-0.25 -> ?"), ("utf-8", "\N{MINUS SIGN}0.25 → 机")]
)
def test_any_encoding_of_the_terminal_does(encoding: str, minus: str) -> None:
    program = (
        "from orl_ldm.cli.main import main, console\n"
        "from orl_ldm.terminal import say\n"
        "main(lambda: say(console, '\\N{MINUS SIGN}0.25 \\N{RIGHTWARDS ARROW} \\u673a'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, env={**os.environ, "PYTHONIOENCODING": encoding}, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode(encoding) == f"{minus}\n"


def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without HOME and without an entry in the password database."""
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)


def test_without_a_home_the_variable_to_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    homeless(monkeypatch)
    monkeypatch.delenv("ORL_LDM_CACHE", raising=False)
    with pytest.raises(UserError, match="set the environment variable ORL_LDM_CACHE"):
        cache_folder()
    with pytest.raises(UserError, match=r"train.out = '~/a': this user has no home folder"):
        load_pipeline(DEMO, ["train.out=~/a"])


def test_a_user_without_an_entry_gets_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(variable, raising=False)

    def unknown(uid: int) -> object:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr("pwd.getpwuid", unknown)
    monkeypatch.setenv("USER", "")
    name_user()
    assert getpass.getuser() == f"uid-{os.getuid()}"


@pytest.mark.parametrize("home", [None, "/proc/nobody"])
def test_without_a_usable_home_the_libraries_cache_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str | None
) -> None:
    for variable in (*CACHES, "XDG_CACHE_HOME", "ORL_LDM_CACHE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("os.access", lambda path, mode: not str(path).startswith("/proc"))
    monkeypatch.setenv("HF_HOME", "mine")
    homeless(monkeypatch) if home is None else monkeypatch.setenv("HOME", home)
    before = dict(os.environ)
    assert "ORL_LDM_CACHE" in place_caches()
    folder = os.environ["MPLCONFIGDIR"]
    assert Path(folder).parent.is_dir() and os.environ["HF_HOME"] == "mine"
    for variable in set(os.environ) - set(before):
        monkeypatch.delenv(variable)
    monkeypatch.setenv("ORL_LDM_CACHE", str(tmp_path))
    assert place_caches() == ""
    assert Path(os.environ["TORCH_HOME"]).is_relative_to(tmp_path)
    for variable in CACHES:
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize(
    ("arguments", "suggestion"),
    [
        (["colect"], "collect"),
        (["train", "demo", "--sett", "a=1"], "--set"),
        (["evaluate", "demo", "--perfer", "paper"], "--prefer"),
        (["train", "demmo"], "did you mean 'demo'?"),
        (["train", "demo", "--set", "trian.seed=1"], "did you mean 'train'?"),
        (["train", "demo", "--set", "train.sede=1"], "did you mean 'seed'?"),
    ],
)
def test_the_nearest_name_is_suggested(
    arguments: list[str], suggestion: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    status, said = printed_by(*arguments, capsys=capsys)
    assert status == 2 and suggestion in said


def test_a_list_of_names_survives_the_command_line() -> None:
    assert override({}, [f"a.b={quoted(NAMES)}"]) == {"a": {"b": NAMES}}


def test_pipelines_are_read_as_utf8(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes('name = "機場"'.encode())
    assert read_toml(tmp_path / "a.toml") == {"name": "機場"}
    assert json.loads(quoted(["機場"])) == ["機場"]
