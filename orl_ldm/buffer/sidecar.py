"""Sidecars as JSON text: written in one layout, and checked in full when read.

A sidecar is `{"schema": 4, "seal": SEAL, "signature": SIGNATURE, "shard": SHARD}` and a newline. The seal is the
SHA-256 of every byte after it. The signature is the HMAC of SHARD under the team's key, or empty.
"""

import hashlib
import hmac
import json
import os
import re
from dataclasses import asdict
from typing import Any, NoReturn

from pydantic import TypeAdapter, ValidationError

from orl_ldm.buffer.schema import (
    MAX_SHARD_BYTES,
    SCHEMA_VERSION,
    ForeignError,
    ShardError,
    Sidecar,
    field_specs,
    is_shard_name,
)
from orl_ldm.errors import UserError

#: The file name of shard NAME's sidecar is NAME and this.
SUFFIX = ".json"

#: Larger sidecars are not read; one of 100,000 images is smaller.
MAX_SIDECAR_BYTES = 2**24

#: The environment variable with the team's key: writers sign, and readers refuse shards that are not signed with it.
KEY_VARIABLE = "ORL_LDM_BUFFER_KEY"

_SHORTEST_KEY = 16
_START = f'{{"schema": {SCHEMA_VERSION}, "seal": "'.encode()
_LAYOUT = re.compile(
    rb'%s([0-9a-f]{64})(", "signature": "([0-9a-f]{64}|)", "shard": (\{.*\})\}\n)' % re.escape(_START), re.DOTALL
)
_SCHEMA = re.compile(rb'\s*\{\s*"schema"\s*:\s*(\d{1,9})\b')
_DIGEST = re.compile(r"[0-9a-f]{64}")
_SIDECAR = TypeAdapter(Sidecar)


def dumps(sidecar: Sidecar) -> bytes:
    """The sidecar's file content, the same bytes for the same sidecar and key on every machine."""
    shard = json.dumps(asdict(sidecar), allow_nan=False).encode()
    return sealed(shard, _sign(shard))


def sealed(shard: bytes, signature: str) -> bytes:
    """The file content that holds the JSON object `shard`."""
    rest = f'", "signature": "{signature}", "shard": '.encode() + shard + b"}\n"
    return _START + hashlib.sha256(rest).hexdigest().encode() + rest


def loads(content: bytes, name: str) -> Sidecar:
    """The sidecar of shard `name` from its file's content.

    Raises ShardError that says what is wrong with it, UserError for a team key that is too short.
    """
    if len(content) > MAX_SIDECAR_BYTES:
        raise ShardError(f"has a sidecar of {len(content)} bytes, more than {MAX_SIDECAR_BYTES}")
    schema = _SCHEMA.match(content)
    if schema and int(schema[1]) != SCHEMA_VERSION:
        raise ForeignError(
            f"is in schema {int(schema[1])} but this version reads schema {SCHEMA_VERSION}: "
            "read it with the orl_ldm that wrote it, or collect it again"
        )
    layout = _LAYOUT.fullmatch(content)
    if not layout or hashlib.sha256(layout[2]).hexdigest() != layout[1].decode():
        raise ShardError("has a sidecar that was damaged or edited: restore it, or collect the shard again")
    _check_signature(layout[4], layout[3].decode())
    sidecar = _parse(layout[4])
    _check(sidecar, name)
    return sidecar


def _parse(shard: bytes) -> Sidecar:
    try:
        json.loads(shard, object_pairs_hook=_unique, parse_constant=_refuse_constant)
        return _SIDECAR.validate_json(shard)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "content"
        raise ShardError(f"has a sidecar whose {place} is wrong: {first['msg']}") from None
    except (ValueError, RecursionError) as error:
        raise ShardError(f"has a sidecar that is not JSON ({error})") from None
    except (UserError, OverflowError) as error:  # OverflowError: an integer of 400 digits is no float
        raise ShardError(f"has a header that cannot be true: {error}") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a key is repeated")
    return dict(pairs)


def _refuse_constant(token: str) -> NoReturn:
    raise ValueError(f"{token} is not a JSON number")


def _sign(shard: bytes) -> str:
    """HMAC-SHA-256 (hex) under this process's key; empty without a key."""
    key = os.environ.get(KEY_VARIABLE, "").encode()
    if key and len(key) < _SHORTEST_KEY:
        raise UserError(f"{KEY_VARIABLE} is shorter than {_SHORTEST_KEY} bytes; set a longer key, or unset it")
    return hmac.new(key, shard, hashlib.sha256).hexdigest() if key else ""


def _check_signature(shard: bytes, signature: str) -> None:
    expected = _sign(shard)
    if expected and not signature:
        raise ForeignError(f"is not signed, and {KEY_VARIABLE} is set: collect with that key, or unset it")
    if expected and not hmac.compare_digest(signature, expected):
        raise ForeignError(f"is signed with another key than {KEY_VARIABLE}: do not trust it, or set its key")


def _check(sidecar: Sidecar, name: str) -> None:
    if not is_shard_name(sidecar.name) or sidecar.name != name:
        raise ShardError(f"has the sidecar of {sidecar.name[:80]!r}: files were renamed or swapped; copy them again")
    if _DIGEST.fullmatch(sidecar.digest) is None:
        raise ShardError(f"declares the digest {sidecar.digest[:80]!r}, which is not 64 lower-case hex digits")
    if sidecar.fields != field_specs(sidecar.header):
        raise ShardError(f"declares other columns than schema {SCHEMA_VERSION} requires under its header")
    memory = sidecar.rows * sum(field.row_bytes for field in sidecar.fields)
    if not 1 <= sidecar.episodes <= sidecar.rows:
        raise ShardError(f"declares {sidecar.rows} rows in {sidecar.episodes} episodes, which cannot be")
    if not 1 <= sidecar.bytes <= MAX_SHARD_BYTES or memory > MAX_SHARD_BYTES:
        raise ShardError(
            f"declares {sidecar.bytes} bytes on disk and {memory} in memory; {MAX_SHARD_BYTES} is the most allowed"
        )
    if memory > sidecar.bytes:  # so that no small file makes a reader allocate much
        raise ShardError(f"declares columns of {memory} bytes in {sidecar.bytes} bytes of data, which cannot be")
