"""What a shard may not hold, and which shards do not go together."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from buffer_samples import HEADER, columns, images, name, write

from orl_ldm.buffer import BufferWriter, Header, ImageRef, read, verify
from orl_ldm.errors import UserError


def put(key: str, row: int | slice, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        data[key][row] = value

    return change


# Rows of the sample: episode 0 is rows 0-2, episode 1 is row 3, episode 2 is rows 4-5.
BROKEN: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (lambda d: d.pop("log_probs"), "lacks the columns log_probs"),
    (lambda d: d.update(extra=d["log_probs"]), "unknown columns extra"),
    (lambda d: d.update(log_probs=d["log_probs"].astype(np.float64)), "'log_probs' as float64"),
    (lambda d: d.update(log_probs=d["log_probs"].astype(">f4")), "'log_probs' as >f4"),
    (lambda d: d.update(log_probs=d["log_probs"].astype(object)), "'log_probs' as object"),
    (lambda d: d.update(log_probs=d["log_probs"][:, None]), r"'log_probs' as float32 \(6, 1\)"),
    (lambda d: d.update(log_probs=d["log_probs"][:-1]), r"'log_probs' as float32 \(5,\) where float32 \(6,\)"),
    (lambda d: d.update(observations=d["observations"][:, :2]), r"\(6, 2\) where float32 \(6, 3\)"),
    (lambda d: d.update({key: column[:0] for key, column in d.items()}), "has no rows"),
    (put("observations", 2, np.nan), "'observations' on row 2 that is not finite"),
    (put("log_probs", 5, -np.inf), "'log_probs' on row 5 that is not finite"),
    (put("actions", 4, [0.96, 0.5]), r"action 'step' of 0.96.* on row 4, outside \[0.0, 0.9"),
    (put("actions", 1, [0.5, -0.1]), "action 'eta' of -0.1.* on row 1"),
    (put("terminals", 5, False), "no terminal on its last row"),
    (put("terminals", 3, False), "another 'episode_id' on row 4"),
    (put("image_id", 1, 2), "another 'image_id' on row 1"),
    (put("episode_id", slice(4, 6), 0), "more than one end in episode 0"),
    (put("terms", 0, [0, 0, 1, 0, 0]), "reward terms on row 0"),
    (put("image_id", 3, 99), "rows of image 99"),
]


@pytest.mark.parametrize(("breaking", "message"), BROKEN, ids=[message for _, message in BROKEN])
def test_a_broken_rule_is_named_and_nothing_is_left(
    tmp_path: Path, breaking: Callable[[dict[str, Any]], Any], message: str
) -> None:
    data = columns()
    known = images(data)
    breaking(data)
    with pytest.raises(UserError, match=f"^shard {name(0)} .*{message}.*; nothing was published$"):
        BufferWriter(tmp_path / "buffer", HEADER).write(name(0), data, known)
    assert not list((tmp_path / "buffer").glob("*"))


def test_every_broken_rule_is_named_at_once(tmp_path: Path) -> None:
    data = columns()
    put("log_probs", 0, np.nan)(data)
    put("image_id", 3, 99)(data)
    with pytest.raises(UserError, match=r"'log_probs' on row 0 .* image 99"):
        BufferWriter(tmp_path, HEADER).write(name(0), data, images(columns()))


def test_an_image_listed_twice_is_refused(tmp_path: Path) -> None:
    data = columns()
    with pytest.raises(UserError, match="lists image 1 twice"):
        BufferWriter(tmp_path, HEADER).write(name(0), data, [*images(data), ImageRef(1, "other", "river")])


def test_an_action_on_its_bound_is_inside_even_where_float32_rounds_the_bound(tmp_path: Path) -> None:
    data = columns()
    data["actions"][:, 0] = np.float32(0.95)  # 0.95 is no float32: this is a little less or more
    assert BufferWriter(tmp_path, HEADER).write(name(0), data, images(data)).rows == 6


@pytest.mark.parametrize(
    "bad", ["", "../up", "a/b", "/abs", ".hidden", "-flag", "a b", "é", "x" * 129, "a\n", "a\\b", "a~b"]
)
def test_a_shard_name_cannot_leave_the_buffer(tmp_path: Path, bad: str) -> None:
    data = columns()
    with pytest.raises(UserError, match="is no shard name"):
        BufferWriter(tmp_path / "buffer", HEADER).write(bad, data, images(data))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"feature_names": ()}, "feature_names"),
        ({"feature_names": ("t", "t")}, "feature_names"),
        ({"action_low": (0.0,)}, "action_low has 1 values"),
        ({"action_high": (1.0, 0.0)}, r"'eta' by \[0.0, 0.0\]"),
        ({"action_high": (1.0, float("inf"))}, "finite bounds"),
        ({"nfe_max": 0}, "nfe_max is 0"),
        ({"pipeline_digest": ""}, "pipeline_digest is empty"),
    ],
)
def test_a_header_that_cannot_be_true_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        replace(HEADER, **change)


def other_features(header: Header) -> Header:
    return replace(header, feature_names=("t", "std", "log_snr"))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (other_features(HEADER), r"feature_names\[1\] is 'std', not 'log_snr'"),
        (replace(HEADER, action_names=("step", "detail")), r"action_names\[1\] is 'detail', not 'eta'"),
        (replace(HEADER, action_high=(0.9, 1.0)), r"action_high\[0\] is 0.9, not 0.95"),
        (replace(HEADER, term_names=("psnr", "ssim")), r"term_names is \('psnr', 'ssim'\), not"),
        (replace(HEADER, nfe_max=10), "nfe_max is 10, not 20"),
        (replace(HEADER, ldm_digest="c" * 64), "ldm_digest is"),
        (replace(HEADER, pipeline_digest="c" * 64), "pipeline_digest is"),
    ],
)
def test_shards_of_different_collections_are_not_mixed(tmp_path: Path, other: Header, message: str) -> None:
    write(tmp_path, 0)
    write(tmp_path, 3, header=other)
    with pytest.raises(UserError, match=f"shard {name(3)} of .* does not go with shard {name(0)} .*{message}"):
        read(tmp_path)
    assert [p.shard for p in verify(tmp_path) if "does not go with" in p.reason] == [name(3)]


def test_two_images_under_one_id_are_not_mixed(tmp_path: Path) -> None:
    write(tmp_path / "a", 0)
    data = columns(3)
    data["image_id"][:] = 0
    data["episode_id"][:] += 10
    BufferWriter(tmp_path / "b", HEADER).write("x", data, [ImageRef(0, "river_7.png", "river")])
    with pytest.raises(UserError, match=r"shard x .* image 0 'river_7.png'"):
        read([tmp_path / "a", tmp_path / "b"])


def test_a_policy_with_other_features_is_told_so(tmp_path: Path) -> None:
    write(tmp_path, 0)
    assert len(read(tmp_path, feature_names=["t", "log_snr", "std"])) == 6
    with pytest.raises(UserError, match=r"feature_names\[1\] is 'log_snr', not 'std'"):
        read(tmp_path, feature_names=["t", "std", "log_snr"])


@pytest.mark.parametrize("reading", [read, verify])
def test_a_buffer_that_is_not_there(tmp_path: Path, reading: Callable[[Path], object]) -> None:
    with pytest.raises(UserError, match=r"there is no buffer .*nowhere; check the path"):
        reading(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"there is no buffer .*file"):
        reading(tmp_path / "file")


def test_a_buffer_without_shards(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no shards; collect into it first"):
        read(tmp_path)
    with pytest.raises(UserError, match="no buffer was given"):
        read([])
    assert verify(tmp_path) == []


def test_a_store_that_no_installed_package_opens() -> None:
    with pytest.raises(UserError, match="cannot open the buffer nosuch://x"):
        read("nosuch://x")


def test_an_unknown_codec_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown buffer codec 'pickle'; choose one of hdf5, zarr"):
        BufferWriter(tmp_path, HEADER, "pickle")  # type: ignore[arg-type]
