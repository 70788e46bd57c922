"""HDF5 shards: one file, one contiguous, unfiltered dataset for each column in the root group.

Nothing is compressed: logged floats are noise-like, and without filters a file cannot expand in memory. The HDF5
library reads only what describes the columns; they themselves are views of the file's bytes, at the checked places that
it names. Everything that could point out of the file is refused.
"""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from orl_ldm.buffer.schema import Columns, FieldSpec, ShardError

#: Room for what describes the columns: about 3 KB for ten of them, and space that aligns them.
_METADATA_BYTES = 2**16


def encode(columns: Columns) -> dict[str, bytes]:
    """The file's content; h5py stores no times, so the same columns give the same bytes."""
    room = bytearray(sum(column.nbytes for column in columns.values()) + _METADATA_BYTES)
    image = _Image(memoryview(room), 0)
    with h5py.File(image, "w") as file:
        for name, column in columns.items():
            file.create_dataset(name, data=column)
    return {"": image.written()}


def decode(files: Mapping[str, bytes], fields: Sequence[FieldSpec], rows: int) -> dict[str, npt.NDArray[Any]]:
    """Columns (rows, *shape) in their stored dtypes, as views. Raises ShardError for links or other layouts."""
    content = memoryview(files[""]).toreadonly()
    with h5py.File(_Image(content, len(content)), "r") as file:
        if file.userblock_size:
            raise ShardError("has something else before its HDF5 data")
        if difference := set(file) ^ {field.name for field in fields}:
            raise ShardError(f"has missing or unknown HDF5 objects: {', '.join(sorted(difference)[:10])}")
        return {field.name: _view(content, file, field, (rows, *field.shape)) for field in fields}


_LINKS = {h5py.h5l.TYPE_SOFT: "soft link", h5py.h5l.TYPE_EXTERNAL: "external link"}


class _Image(io.RawIOBase):
    """A file in memory that is there already, for h5py: `io.BytesIO` would copy it, again and again as it grows."""

    def __init__(self, content: memoryview, size: int) -> None:
        self._content, self._place, self._size = content, 0, size

    def written(self) -> bytes:
        """What h5py made of it."""
        return bytes(self._content[: self._size])

    def write(self, data: Any) -> int:
        self._content[self._place : self._place + len(data)] = data
        self._place += len(data)
        self._size = max(self._size, self._place)
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        self._size = self._place if size is None else size
        return self._size

    def readinto(self, target: Any) -> int:
        read = self._content[self._place : min(self._place + len(target), self._size)]
        target[: len(read)] = read
        self._place += len(read)
        return len(read)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        return self._place

    def tell(self) -> int:
        return self._place


def _view(content: memoryview, file: h5py.File, field: FieldSpec, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    path = field.name.encode()
    link = file.id.links.get_info(path).type
    if link != h5py.h5l.TYPE_HARD:
        raise ShardError(f"has an HDF5 {_LINKS.get(link, 'user-defined link')} as {field.name!r}; links are refused")
    if h5py.h5o.get_info(file.id, path).type != h5py.h5o.TYPE_DATASET:
        raise ShardError(f"has an HDF5 group or type as {field.name!r} where a dataset is needed")
    dataset = h5py.h5d.open(file.id, path)
    created = dataset.get_create_plist()
    # The layout comes first: even asking a virtual dataset for its shape may open other files.
    if created.get_layout() != h5py.h5d.CONTIGUOUS or created.get_external_count() or created.get_nfilters():
        raise ShardError(f"stores {field.name!r} as {_layout(created)}; only contiguous, unfiltered data are read")
    dtype, found = dataset.dtype, dataset.shape
    if dtype != field.stored or found != shape:
        raise ShardError(f"stores {field.name!r} as {dtype} {found} where {field.stored} {shape} is declared")
    place, size = dataset.get_offset(), math.prod(shape) * field.stored.itemsize
    if place is None or dataset.get_storage_size() != size or place + size > len(content):
        raise ShardError(f"has no data behind {field.name!r}, which would read as zeros")
    return np.frombuffer(content, field.stored, math.prod(shape), place).reshape(shape)


def _layout(created: h5py.h5p.PropDCID) -> str:
    if created.get_layout() == h5py.h5d.VIRTUAL:
        return "a virtual dataset"
    if created.get_external_count():
        return "a dataset in another file"
    filters = [created.get_filter(index)[3].decode(errors="replace") for index in range(created.get_nfilters())]
    return f"a chunked or compact dataset with the filters {filters}"
