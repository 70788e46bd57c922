"""Signed shards: with a key, readers take only shards that are signed with it."""

import json
from pathlib import Path

import pytest
from buffer_samples import HEADER, columns, images, name, write

from orl_ldm.buffer import BufferWriter, read, sidecar, verify
from orl_ldm.errors import UserError

KEY = "a key that nobody guesses"


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


def test_a_signed_shard_cannot_be_changed_under_a_new_seal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody can compute a seal; the signature needs the key."""
    monkeypatch.setenv("ORL_LDM_BUFFER_KEY", KEY)
    write(tmp_path, 3)
    doc = json.loads(sidecar.dumps(write(tmp_path, 0)))
    doc["shard"]["header"]["seed"] += 1
    (tmp_path / f"{name(0)}.json").write_bytes(sidecar.sealed(json.dumps(doc["shard"]).encode(), doc["signature"]))
    assert "signed with another key" in read(tmp_path).quarantined[name(0)]


def test_a_short_key_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORL_LDM_BUFFER_KEY", "secret")
    data = columns()
    with pytest.raises(UserError, match="ORL_LDM_BUFFER_KEY is shorter than 16 bytes"):
        BufferWriter(tmp_path, HEADER).write(name(0), data, images(data))
