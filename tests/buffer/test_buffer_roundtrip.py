"""What is written is what is read: by both codecs, from one or many buffers, on any store."""

import uuid
from dataclasses import asdict, replace
from pathlib import Path

import fsspec
import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from buffer_samples import HEADER, columns, data_files, encoded, images, name, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orl_ldm.buffer import BufferWriter, Header, ImageRef, codec, read, schema, sidecar, validation, verify
from orl_ldm.buffer.schema import CodecName
from orl_ldm.errors import UserError

BOTH = pytest.mark.parametrize("codec_name", ["hdf5", "zarr"])


def memory_url() -> str:
    return f"memory://{uuid.uuid4().hex}/buffer"


@BOTH
@pytest.mark.parametrize("place", ["folder", "memory"])
def test_rows_come_back_in_shard_order(tmp_path: Path, place: str, codec_name: CodecName) -> None:
    url = str(tmp_path / "run [1]" / "buffer") if place == "folder" else memory_url()
    for unit in (6, 0, 3):
        write(url, unit, codec_name)
    buffer = read(url)
    assert buffer.shards == (name(0), name(3), name(6))
    assert buffer.header == HEADER and not buffer.quarantined and verify(url) == []
    for key, column in buffer.columns.items():
        expected = np.concatenate([columns(unit)[key] for unit in (0, 3, 6)])
        np.testing.assert_array_equal(column, expected)
        assert column.dtype == expected.dtype
    assert buffer.images[4] == ImageRef(4, "forest_004.png", "forest")
    assert buffer.observations.shape == (18, 3) and buffer.terms.shape == (18, 5)
    np.testing.assert_array_equal(buffer.episode_bounds[:4], [[0, 3], [3, 4], [4, 6], [6, 9]])


@BOTH
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
@given(data=st.data())
def test_any_finite_floats_survive(codec_name: CodecName, data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    written = columns(data.draw(st.integers(-(2**63), 2**63 - 6)), lengths)
    floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
    for key in ("observations", "log_probs"):
        written[key] = data.draw(hnp.arrays(np.float32, written[key].shape, elements=floats))
    assert validation.column_problems(written, HEADER, images(written)) == []
    fields = schema.field_specs(HEADER)
    files = encoded(codec_name, written)
    assert encoded(codec_name, written) == files
    found = codec.decode(codec_name, files, fields, sum(lengths))
    for key, column in written.items():
        assert found[key].tobytes() == column.tobytes()  # bit for bit, signs of zeros included


words = st.text(min_size=1, max_size=8)
numbers = st.floats(allow_nan=False, allow_infinity=False, width=32)


@given(
    features=st.lists(words, min_size=1, unique=True),
    actions=st.dictionaries(words, numbers, min_size=1, max_size=3),
    packages=st.dictionaries(words, st.text()),
    seed=st.integers(),
    refs=st.lists(st.builds(ImageRef, st.integers(-(2**63), 2**63 - 1), st.text(), st.text()), max_size=4),
)
def test_any_sidecar_survives_its_json(
    features: list[str], actions: dict[str, float], packages: dict[str, str], seed: int, refs: list[ImageRef]
) -> None:
    header = Header(
        **asdict(HEADER)
        | {
            "feature_names": features,
            "action_names": tuple(actions),
            "action_low": tuple(actions.values()),
            "action_high": tuple(2 * abs(low) + 1 for low in actions.values()),
            "packages": packages,
            "seed": seed,
        }
    )
    fields = schema.field_specs(header)
    described = schema.Sidecar(name(0), "zarr", header, 7, 2, 9000, "c" * 64, fields, tuple(refs))
    assert sidecar.loads(sidecar.dumps(described), name(0)) == described


def test_both_codecs_hold_the_same(tmp_path: Path) -> None:
    for codec_name in ("hdf5", "zarr"):
        write(tmp_path / codec_name, 0, codec_name)
    one, other = read(tmp_path / "hdf5"), read(tmp_path / "zarr")
    for key in one.columns:
        np.testing.assert_array_equal(one.columns[key], other.columns[key])


@BOTH
def test_the_same_work_is_the_same_files_on_every_machine(tmp_path: Path, codec_name: CodecName) -> None:
    for machine in ("a", "b"):
        write(tmp_path / machine, 0, codec_name)
    found = [
        {p.relative_to(tmp_path / m): p.read_bytes() for p in (tmp_path / m).rglob("*") if p.is_file()} for m in "ab"
    ]
    assert found[0] == found[1]


@BOTH
def test_a_buffer_may_be_copied_between_stores(tmp_path: Path, codec_name: CodecName) -> None:
    url = memory_url()
    described = write(url, 0, codec_name)
    fs = fsspec.filesystem("memory")
    fs.get(url.removeprefix("memory://"), str(tmp_path / "copy"), recursive=True)
    assert len(data_files(tmp_path / "copy", described)) == (1 if codec_name == "hdf5" else 15)
    assert read(tmp_path / "copy").shards == (name(0),)


def test_the_same_work_in_two_buffers_is_read_once(tmp_path: Path) -> None:
    write(tmp_path / "a", 0)
    write(tmp_path / "a", 3)
    write(tmp_path / "b", 3, "zarr", noise=1)
    write(tmp_path / "b", 6, "zarr")
    buffer = read([tmp_path / "a", tmp_path / "b"])
    assert buffer.shards == (name(0), name(3), name(6))
    assert np.unique(buffer.episode_id).size == len(buffer.episode_bounds) == 9
    np.testing.assert_array_equal(buffer.log_probs[6:12], columns(3)["log_probs"])  # of the buffer given first


def test_a_shard_that_overlaps_others_gives_its_new_episodes_only(tmp_path: Path) -> None:
    data = columns(-2, (2, 3, 2, 4))
    BufferWriter(tmp_path, HEADER).write("wide", data, images(data))
    write(tmp_path, 0)
    buffer = read(tmp_path)
    assert buffer.shards == (name(0), "wide")
    assert buffer.episode_id[buffer.episode_bounds[:, 0]].tolist() == [0, 1, 2, -2, -1]
    assert len(buffer) == 6 + 2 + 3
    assert [(p.shard, p.harmless) for p in verify(tmp_path)] == [("wide", True)]


@pytest.mark.parametrize("change", [{"behavior_id": "policy-1"}, {"seed": 43}])
def test_episodes_of_another_behaviour_or_seed_are_never_taken_for_duplicates(
    tmp_path: Path, change: dict[str, object]
) -> None:
    write(tmp_path / "a", 0)
    write(tmp_path / "b", 0, noise=1, header=replace(HEADER, **change))
    buffer = read([tmp_path / "a", tmp_path / "b"])
    assert len(buffer.episode_bounds) == 6 and len(buffer) == 12


def test_publishing_again_keeps_the_first(tmp_path: Path) -> None:
    first = write(tmp_path, 0)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert write(tmp_path, 0, noise=1, header=replace(HEADER, packages={"numpy": "2.4"})) == first
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_published_is_what_need_not_be_collected_again(tmp_path: Path) -> None:
    writer = BufferWriter(tmp_path / "new", HEADER)
    assert writer.published() == set()
    lost, damaged, kept = (write(tmp_path / "new", unit) for unit in (0, 3, 6))
    assert writer.published() == {lost.name, damaged.name, kept.name}
    (tmp_path / "new" / lost.data).unlink()
    (tmp_path / "new" / f"{damaged.name}.json").write_text("{}")
    assert writer.published() == {kept.name}
    for unit in (0, 3):
        write(tmp_path / "new", unit)
    assert len(writer.published()) == 3 and verify(tmp_path / "new") == []


def test_a_name_taken_by_other_work_is_an_error_not_a_silent_skip(tmp_path: Path) -> None:
    write(tmp_path, 0)
    other = replace(HEADER, seed=43)
    assert BufferWriter(tmp_path, other).published() == set()
    with pytest.raises(
        UserError, match=r"shard b3f1a2-000000-000003 .* its seed is 42, not 43; write to another folder"
    ):
        write(tmp_path, 0, header=other)
