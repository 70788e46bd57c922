"""Buffers of earlier schemas, and signed ones."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from buffer_samples import HEADER, columns, encoded, forge, images, name, write

from orl_ldm.buffer import SCHEMA_VERSION, BufferWriter, read, sidecar, verify
from orl_ldm.buffer.schema import CodecName, field_specs
from orl_ldm.errors import UserError

#: By schema, shards 0 (hdf5) and 3 (zarr), written by the version of this package that wrote it.
EARLIER = {schema: Path(__file__).parent / f"schema{schema}" for schema in (1, 2)}

KEY = "a key that nobody guesses"


@pytest.mark.parametrize("schema", EARLIER)
def test_a_buffer_of_an_earlier_schema_is_still_read(schema: int) -> None:
    assert verify(EARLIER[schema]) == []
    buffer = read(EARLIER[schema], strict=True)
    for key, column in buffer.columns.items():
        np.testing.assert_array_equal(column, np.concatenate([columns(unit)[key] for unit in (0, 3)]))


@pytest.mark.parametrize("schema", EARLIER)
def test_work_in_an_earlier_schema_is_not_done_again_and_new_work_goes_beside_it(tmp_path: Path, schema: int) -> None:
    shutil.copytree(EARLIER[schema], tmp_path / "buffer")
    assert BufferWriter(tmp_path / "buffer", HEADER).published() == {name(0), name(3)}
    assert write(tmp_path / "buffer", 0).schema == schema and write(tmp_path / "buffer", 6).schema == SCHEMA_VERSION
    assert read(tmp_path / "buffer", strict=True).shards == (name(0), name(3), name(6))


@pytest.mark.parametrize("schema", [*EARLIER, SCHEMA_VERSION])
def test_damage_to_a_shard_is_found_in_every_schema(tmp_path: Path, schema: int) -> None:
    if schema in EARLIER:
        shutil.copytree(EARLIER[schema], tmp_path / "buffer")
    else:
        write(tmp_path / "buffer", 0), write(tmp_path / "buffer", 3)
    path = next((tmp_path / "buffer").glob(f"{name(0)}.*.h5"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert "do not match their digest" in read(tmp_path / "buffer").quarantined[name(0)]
    assert ["do not match their digest" in problem.reason for problem in verify(tmp_path / "buffer")] == [True]


@pytest.mark.parametrize("codec", ["hdf5", "zarr"])
@pytest.mark.parametrize("lie", [{"checksum": "0" * 32}, {"digest": "0" * 64}])
def test_verify_looks_at_both_hashes_and_loading_at_the_fast_one_unless_there_is_a_key(
    tmp_path: Path, codec: CodecName, lie: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORL_LDM_BUFFER_KEY", KEY)
    data = columns(0)
    forge(tmp_path, 0, encoded(codec, data, field_specs(HEADER)), codec, **lie)
    write(tmp_path, 3)
    assert read(tmp_path).shards == (name(3),)
    assert [problem.shard for problem in verify(tmp_path)] == [name(0)]
    monkeypatch.delenv("ORL_LDM_BUFFER_KEY")
    assert [problem.shard for problem in verify(tmp_path)] == [name(0)]
    assert (name(0) in read(tmp_path).shards) == ("digest" in lie)


def test_with_a_key_writers_sign_and_readers_take_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, 0)
    monkeypatch.setenv("ORL_LDM_BUFFER_KEY", "the key of another team")
    write(tmp_path, 3)
    monkeypatch.setenv("ORL_LDM_BUFFER_KEY", KEY)
    write(tmp_path, 6)
    buffer = read(tmp_path)
    assert buffer.shards == (name(6),)
    assert "is not signed, and ORL_LDM_BUFFER_KEY is set" in buffer.quarantined[name(0)]
    assert "is signed with another key than ORL_LDM_BUFFER_KEY" in buffer.quarantined[name(3)]
    assert {problem.shard for problem in verify(tmp_path)} == {name(0), name(3)}
    monkeypatch.delenv("ORL_LDM_BUFFER_KEY")
    assert len(read(tmp_path).shards) == 3  # without a key all can be read: digests still find damage


def test_a_shard_of_another_key_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, 0)
    monkeypatch.setenv("ORL_LDM_BUFFER_KEY", KEY)
    assert BufferWriter(tmp_path, HEADER).published() == set()
    with pytest.raises(UserError, match=f"shard {name(0)} .* is not signed.*write to another folder"):
        write(tmp_path, 0)


@pytest.mark.parametrize("place", ["before", "after"])
def test_what_is_signed_cannot_be_changed_or_added_to(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even under a seal that is right, which anybody can compute."""
    monkeypatch.setenv("ORL_LDM_BUFFER_KEY", KEY)
    write(tmp_path, 3)
    described = write(tmp_path, 0)
    text = sidecar.dumps(described).decode()
    signature = json.loads(text)["signature"]
    start, _, _ = text.partition('"signature"')
    if place == "before":
        head = start.replace('"seed": 42', '"seed": 43') + f'"signature": "{signature}", '
    else:
        start = start.replace('"rows": 6,', "")
        head = start + f'"signature": "{signature}", "rows": 6, '
    (tmp_path / f"{name(0)}.json").write_bytes(sidecar.sealed(head.encode()))
    assert "signed with another key" in read(tmp_path).quarantined[name(0)]


def test_a_short_key_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORL_LDM_BUFFER_KEY", "secret")
    data = columns()
    with pytest.raises(UserError, match="ORL_LDM_BUFFER_KEY is shorter than 16 bytes"):
        BufferWriter(tmp_path, HEADER).write(name(0), data, images(data))
