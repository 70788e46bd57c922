"""HDF5 shards: one file, one contiguous, unfiltered dataset for each column in the root group.

Nothing is compressed: logged floats are noise-like, and without filters a file cannot expand in memory. The HDF5
library only ever writes and reads what describes the columns, which is all that a file of this package has besides them
and depends on nothing but their names, dtypes and shapes. On reading, columns are views of the file's bytes, at the
checked places that the library names. Everything that could point out of the file is refused.
"""

import io
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from orl_ldm.buffer.schema import Columns, FieldSpec, ShardError

#: Room for what describes the columns: about 3 KB for ten of them, and space that aligns them.
_METADATA_BYTES = 2**16


def encode(columns: Columns) -> dict[str, list[bytes | memoryview]]:
    """The file's content in pieces, its columns as they are; the same columns give the same bytes."""
    parts = skeleton(tuple((name, column.dtype.str, column.shape) for name, column in columns.items()))
    return {"": [part if isinstance(part, bytes) else columns[part].data.cast("B") for part in parts]}


@lru_cache(maxsize=16)
def skeleton(columns: tuple[tuple[str, str, tuple[int, ...]], ...]) -> tuple[bytes | str, ...]:
    """A file with columns (name, stored dtype, shape) in its order: what stands between them, and their names."""
    sizes = {name: math.prod(shape) * np.dtype(dtype).itemsize for name, dtype, shape in columns}
    room = np.zeros(sum(sizes.values()) + _METADATA_BYTES, np.uint8)  # (only what is written to takes memory)
    image, places = _Image(room.data, 0), {}
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_layout(h5py.h5d.CONTIGUOUS)
    layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    layout.set_obj_track_times(False)
    with h5py.File(image, "w") as file:
        for name, dtype, shape in columns:
            kind, space = h5py.h5t.py_create(np.dtype(dtype)), h5py.h5s.create_simple(shape)
            places[h5py.h5d.create(file.id, name.encode(), kind, space, layout).get_offset()] = name
    parts: list[bytes | str] = []
    reached = 0
    for place, name in sorted(places.items()):
        parts += [room[reached:place].tobytes(), name]
        reached = place + sizes[name]
    return *parts, room[reached : image.size].tobytes()


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
        self._content, self._place, self.size = content, 0, size

    def write(self, data: Any) -> int:
        self._content[self._place : self._place + len(data)] = data
        self._place += len(data)
        self.size = max(self.size, self._place)
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        self.size = self._place if size is None else size
        return self.size

    def readinto(self, target: Any) -> int:
        read = self._content[self._place : min(self._place + len(target), self.size)]
        target[: len(read)] = read
        self._place += len(read)
        return len(read)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self.size}[whence]
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
