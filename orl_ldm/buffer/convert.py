"""The same shards in another codec."""

from collections.abc import Callable
from pathlib import Path

from orl_ldm.buffer import shard
from orl_ldm.buffer.schema import CodecName, Header, ShardError, Sidecar
from orl_ldm.buffer.store import Store
from orl_ldm.buffer.transfer import Transferred
from orl_ldm.buffer.writer import BufferWriter
from orl_ldm.errors import UserError


def convert(
    source: str | Path,
    target: str | Path,
    codec: CodecName,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Transferred:
    """Write every sound shard of `source` to another buffer with `codec`: names, columns and headers stay.

    `advance(done, total)` hears of bytes. Goes on where it was interrupted. Raises UserError as `BufferWriter` does,
    and for a source without shards.
    """
    store = Store(source)
    if Store(target).same_place(store):
        raise UserError(f"cannot convert {store.url} in its own place, as shards never change; give another folder")
    entries = shard.listed(store)
    found = shard.sidecars(store, entries, shard.names(entries))
    if not found:
        raise UserError(f"the buffer {store.url} has no shards; collect into it first, or give another one")
    total = sum(side.bytes for side in found.values() if isinstance(side, Sidecar))
    bad: dict[str, str] = {}
    copied: list[Sidecar] = []
    writers: list[tuple[Header, BufferWriter, set[str]]] = []  # one for each behaviour and seed
    done = present = 0
    advance(done, total)
    for name, side in found.items():
        try:
            if isinstance(side, ShardError):
                raise side
            writer, published = _writer(writers, target, side.header, codec)
            if name in published:
                present += 1
            else:
                copied.append(writer.write(name, shard.checked_columns(store, entries, side), side.images))
            done += side.bytes
            advance(done, total)
        except ShardError as error:
            bad[name] = f"shard {name} of {store.url} {error}"
    return Transferred(tuple(side.name for side in copied), sum(side.bytes for side in copied), present, bad)


def _writer(
    writers: list[tuple[Header, BufferWriter, set[str]]], target: str | Path, header: Header, codec: CodecName
) -> tuple[BufferWriter, set[str]]:
    """A writer for a header and what it found in the target, asked for once."""
    for known, writer, published in writers:
        if known == header:
            return writer, published
    writer = BufferWriter(target, header, codec)
    writers.append((header, writer, writer.published()))
    return writer, writers[-1][2]
