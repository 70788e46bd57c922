"""Files are whole or not there, in UTF-8, and a disk that does not take them is named in a sentence."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from orl_ldm.errors import UserError
from orl_ldm.files import require_writable, write_bytes, write_text, writing


def test_text_is_utf8_with_unix_line_ends_in_new_folders(tmp_path: Path) -> None:
    write_text(tmp_path / "機場" / "[a] #1" / "names.txt", "机场\nrivière\n")
    assert (tmp_path / "機場" / "[a] #1" / "names.txt").read_bytes() == "机场\nrivière\n".encode()


def test_a_full_disk_keeps_the_old_file_and_leaves_no_part_of_the_new_one(tmp_path: Path, full_disk: None) -> None:
    path = tmp_path / "table.csv"
    write_text(path, "old")
    with pytest.raises(UserError, match=r"cannot write '.*table.csv' \(File too large\): make room there"):
        write_bytes(path, bytes(2000))
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_weights_that_do_not_fit_are_named(tmp_path: Path, full_disk: None) -> None:
    path = tmp_path / "weights.safetensors"
    with pytest.raises(UserError, match=r"cannot write '.*weights.safetensors'"), writing(path):
        save_file({"a": torch.zeros(1000)}, path)


@pytest.mark.parametrize("place", ["file", "file/below", "file/far/below", "dangling", "dangling/below"])
def test_a_file_in_the_way_is_found_before_work(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    with pytest.raises(UserError, match=r"^train.out = '.*' cannot be written to \("):
        require_writable(tmp_path / place, "train.out")
    with pytest.raises(UserError, match="cannot write"):
        write_text(tmp_path / place / "metrics.csv", "")


def test_a_read_only_place_is_found_before_work() -> None:
    with pytest.raises(UserError, match=r"evaluate.out = '/proc/results' cannot be written to"):
        require_writable("/proc/results", "evaluate.out")


def test_checking_leaves_no_trace(tmp_path: Path) -> None:
    require_writable(tmp_path / "a" / "b", "out")
    require_writable(tmp_path, "out")
    assert not list(tmp_path.iterdir())
