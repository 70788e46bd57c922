"""Sidecars as JSON text: written in one way only, read without believing anything.

The text seals itself: its last key, `seal`, is the SHA-256 of all the bytes before that key. The key before it,
`signature`, is empty or the HMAC of all the bytes before it.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, NoReturn, TypeVar, get_args

from orl_ldm.buffer import signing
from orl_ldm.buffer.schema import (
    MAX_SHARD_BYTES,
    READABLE_SCHEMAS,
    SCHEMA_VERSION,
    CodecName,
    FieldSpec,
    Header,
    ImageRef,
    Images,
    OtherSchemaError,
    ShardError,
    Sidecar,
    SignatureError,
    field_specs,
    is_shard_name,
)
from orl_ldm.errors import UserError

#: Reading is refused above this; a sidecar of 100,000 images stays below it.
MAX_SIDECAR_BYTES = 2**24

_IMAGE_KEYS = ImageRef._fields

#: Keys that sidecars of earlier schemas do not have.
_ABSENT: Mapping[int, set[str]] = {1: {"signature", "checksum"}, 2: {"checksum"}}

_SIGNATURE = b'"signature": "'
_SEAL = b'"seal": "'
_END = b'"\n}\n'
_AFTER_SIGNATURE = re.compile(rb'[0-9a-f]{64}",\s*"seal": "[0-9a-f]{64}"\n}\n')
_DIGEST = re.compile(r"[0-9a-f]{64}")
_CHECKSUM = re.compile(r"[0-9a-f]{32}")
_T = TypeVar("_T")


def dumps(sidecar: Sidecar) -> bytes:
    """The sidecar's file content: UTF-8 JSON, the same bytes for the same sidecar and key on every machine."""
    parts = {"header": vars(sidecar.header), "fields": list(map(vars, sidecar.fields)), "images": vars(sidecar.images)}
    body = vars(sidecar) | parts
    head = json.dumps(body, allow_nan=False)[:-1].encode() + b",\n "
    secret = signing.key()
    head += _SIGNATURE + (signing.sign(secret, head).encode() if secret else b"") + b'",\n '
    return sealed(head)


def sealed(head: bytes) -> bytes:
    """The file content that begins with `head`, an object without its last key and brace."""
    return head + _SEAL + hashlib.sha256(head).hexdigest().encode() + _END


class Known(NamedTuple):
    """A header that has been read, and its text in a sidecar: shards of a collection repeat it, and it may be long."""

    header: Header
    text: str

    @staticmethod
    def of(header: Header) -> "Known":
        """As `dumps` writes it."""
        return Known(header, f'"header": {json.dumps(vars(header), allow_nan=False)}')


def loads(content: bytes, name: str, like: Known | None = None) -> Sidecar:
    """The sidecar of shard `name` from its file's content, signed with this process's key if it has one.

    Where its header is written as `like` is, it is that one and is not read again. Raises ShardError, saying what is
    wrong with it.
    """
    if len(content) > MAX_SIDECAR_BYTES:
        raise ShardError(f"has a sidecar of {len(content)} bytes, more than {MAX_SIDECAR_BYTES}")
    text = _decoded(content)
    # What stands for the text could be a value by itself: unless the text was there, it is refused. Objects within
    # others have no such key.
    short = text.replace(like.text, '"header": null', 1) if like else text
    doc = _parse(short)
    schema = _take(doc, "schema", int)
    if schema not in READABLE_SCHEMAS:
        raise OtherSchemaError(
            f"is in schema {schema} but this version reads schema {', '.join(map(str, READABLE_SCHEMAS))}: "
            "read it with the orl_ldm that wrote it, or collect it again"
        )
    _check_seal(content, _take(doc, "seal", str))
    if schema == 1:
        doc["digest"] = doc.pop("sha256", None)
    absent = _ABSENT.get(schema, set())
    _check_keys(doc, {*Sidecar.__dataclass_fields__, "signature", "seal"} - absent, "sidecar")
    _check_signature(content, "" if "signature" in absent else _take(doc, "signature", str))
    codec = _take(doc, "codec", str)
    if codec not in get_args(CodecName):
        raise ShardError(f"has the unknown codec {_short(codec)}; known are {', '.join(get_args(CodecName))}")
    sidecar = Sidecar(
        schema=schema,
        name=_take(doc, "name", str),
        codec=codec,  # type: ignore[arg-type]  # checked above
        header=like.header if like and short != text and doc["header"] is None else _header(_take(doc, "header", dict)),
        rows=_take(doc, "rows", int),
        episodes=_take(doc, "episodes", int),
        bytes=_take(doc, "bytes", int),
        digest=_take(doc, "digest", str),
        checksum="" if "checksum" in absent else _take(doc, "checksum", str),
        fields=tuple(_field(field) for field in _take(doc, "fields", list)),
        images=_listed_images(_take(doc, "images", list)) if schema == 1 else _images(_take(doc, "images", dict)),
    )
    _check(sidecar, name)
    return sidecar


def _decoded(content: bytes) -> str:
    try:
        return content.decode()
    except ValueError as error:
        raise ShardError(f"has a sidecar that is not JSON ({error}): restore it, or collect the shard again") from None


def _parse(text: str) -> dict[str, Any]:
    try:
        doc = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ShardError(f"has a sidecar that is not JSON ({error}): restore it, or collect the shard again") from None
    if not isinstance(doc, dict):
        raise ShardError("has a sidecar that is not a JSON object: restore it, or collect the shard again")
    return doc


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a key is repeated")
    return dict(pairs)


def _refuse_constant(token: str) -> NoReturn:
    raise ValueError(f"{token} is not a JSON number")


def _check_seal(content: bytes, seal: str) -> None:
    head, _, tail = content.rpartition(_SEAL)
    if hashlib.sha256(head).hexdigest() != seal or tail != seal.encode() + _END:
        raise ShardError(
            "has a sidecar that was damaged or edited: restore it, or delete it and collect the shard again"
        )


def _check_signature(content: bytes, signature: str) -> None:
    secret = signing.key()
    if secret is None:
        return
    if not signature:
        raise SignatureError(f"is not signed, and {signing.VARIABLE} is set: collect with that key, or unset it")
    head, _, tail = content.rpartition(_SIGNATURE)
    # Only the seal may follow: whatever else stood there would not be signed.
    if not _AFTER_SIGNATURE.fullmatch(tail) or not signing.matches(secret, head, signature):
        raise SignatureError(f"is signed with another key than {signing.VARIABLE}: do not trust it, or set its key")


def _check(sidecar: Sidecar, name: str) -> None:
    if not is_shard_name(sidecar.name) or sidecar.name != name:
        raise ShardError(f"has the sidecar of {_short(sidecar.name)}: files were renamed or swapped; copy them again")
    if _DIGEST.fullmatch(sidecar.digest) is None:
        raise ShardError(f"declares the digest {_short(sidecar.digest)}, which is not 64 lower-case hex digits")
    if sidecar.schema == SCHEMA_VERSION and _CHECKSUM.fullmatch(sidecar.checksum) is None:
        raise ShardError(f"declares the checksum {_short(sidecar.checksum)}, which is not 32 lower-case hex digits")
    if sidecar.fields != field_specs(sidecar.header):
        raise ShardError(f"declares other columns than schema {sidecar.schema} requires under its header")
    memory = sidecar.rows * sum(field.row_bytes for field in sidecar.fields)
    if sidecar.rows < 1 or not 1 <= sidecar.episodes <= sidecar.rows:
        raise ShardError(f"declares {sidecar.rows} rows in {sidecar.episodes} episodes, which cannot be")
    if not 1 <= sidecar.bytes <= MAX_SHARD_BYTES or memory > MAX_SHARD_BYTES:
        raise ShardError(
            f"declares {sidecar.bytes} bytes on disk and {memory} in memory; {MAX_SHARD_BYTES} is the most allowed"
        )
    if memory > sidecar.bytes:  # so that no small file makes a reader allocate much
        raise ShardError(f"declares columns of {memory} bytes in {sidecar.bytes} bytes of data, which cannot be")


def _header(doc: Mapping[str, Any]) -> Header:
    _check_keys(doc, set(Header.__dataclass_fields__), "header")
    for key in ("feature_names", "action_names", "term_names"):
        _check_items(key, _take(doc, key, list), str)
    for key in ("action_low", "action_high"):
        _check_items(key, _take(doc, key, list), int, float)
    for key in ("pipeline_digest", "ldm_id", "ldm_digest", "behavior_id"):
        _take(doc, key, str)
    for key in ("nfe_max", "seed"):
        _take(doc, key, int)
    _check_items("packages", list(_take(doc, "packages", dict).values()), str)
    _check_items("reward_weights", list(_take(doc, "reward_weights", dict).values()), int, float)
    try:
        return Header(**doc)
    except (UserError, OverflowError) as error:  # OverflowError: an integer of 400 digits is no float
        raise ShardError(f"has a header that cannot be true: {error}") from None


def _field(doc: object) -> FieldSpec:
    entry = _object(doc, FieldSpec.__dataclass_fields__, "FieldSpec")
    shape = _take(entry, "shape", list)
    _check_items("shape", shape, int)
    return FieldSpec(_take(entry, "name", str), _take(entry, "dtype", str), tuple(shape))


def _listed_images(docs: list[object]) -> Images:
    """Images from an object for each."""
    return Images.of(map(_image, docs))


def _image(doc: object) -> ImageRef:
    entry = _object(doc, _IMAGE_KEYS, "ImageRef")
    return ImageRef(_take(entry, "image_id", int), _take(entry, "name", str), _take(entry, "scene", str))


def _images(doc: Mapping[str, Any]) -> Images:
    """Images from a list for each of their facts."""
    _check_keys(doc, set(_IMAGE_KEYS), "list of images")
    lists = [_take(doc, key, list) for key in _IMAGE_KEYS]
    for key, items, kind in zip(_IMAGE_KEYS, lists, (int, str, str), strict=True):
        _check_items(key, items, kind)
    if len(set(map(len, lists))) > 1:
        raise ShardError(f"has images that cannot be: {', '.join(_IMAGE_KEYS)} are lists of different lengths")
    return Images(*map(tuple, lists))


def _object(doc: object, keys: Iterable[str], what: str) -> dict[str, Any]:
    if not isinstance(doc, dict):
        raise ShardError(f"has a sidecar with {_short(doc)} where a {what} is needed")
    _check_keys(doc, set(keys), what)
    return doc


def _take(doc: Mapping[str, Any], key: str, kind: type[_T]) -> _T:
    value = doc.get(key)
    if type(value) is not kind:  # not isinstance: True is no row count
        raise ShardError(f"has a sidecar whose {key!r} is {_short(value)} where a {kind.__name__} is needed")
    return value


def _check_items(key: str, items: list[Any], *kinds: type) -> None:
    if not set(map(type, items)) <= set(kinds):
        item = next(item for item in items if type(item) not in kinds)
        raise ShardError(f"has a sidecar with {_short(item)} in {key!r} where a {kinds[-1].__name__} is needed")


def _check_keys(doc: Mapping[str, Any], expected: set[str], what: str) -> None:
    if difference := set(doc) ^ expected:
        raise ShardError(f"has a {what} in which the keys {_short(sorted(difference))} are missing or unknown")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
