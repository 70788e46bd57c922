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


def encode(columns: Columns) -> dict[str, bytes | memoryview]:
    """The file's content; h5py stores no times, so the same columns give the same bytes."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, column in columns.items():
            file.create_dataset(name, data=column)
    return {"": buffer.getbuffer()}


def decode(
    files: Mapping[str, bytes | memoryview], fields: Sequence[FieldSpec], rows: int
) -> dict[str, npt.NDArray[Any]]:
    """Columns (rows, *shape) in their stored dtypes, as views. Raises ShardError for links or other layouts."""
    content = memoryview(files[""]).toreadonly()
    with h5py.File(_Image(content), "r") as file:
        if file.userblock_size:
            raise ShardError("has something else before its HDF5 data")
        if difference := set(file) ^ {field.name for field in fields}:
            raise ShardError(f"has missing or unknown HDF5 objects: {', '.join(sorted(difference)[:10])}")
        return {field.name: _view(content, file, field, (rows, *field.shape)) for field in fields}


class _Image(io.RawIOBase):
    """A file whose content is in memory already, for h5py: `io.BytesIO` would copy it."""

    def __init__(self, content: memoryview) -> None:
        self._content, self._place = content, 0

    def readinto(self, target: Any) -> int:
        read = self._content[self._place : self._place + len(target)]
        target[: len(read)] = read
        self._place += len(read)
        return len(read)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: len(self._content)}[whence]
        return self._place

    def tell(self) -> int:
        return self._place


def _view(content: memoryview, file: h5py.File, field: FieldSpec, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    link = file.get(field.name, getlink=True)
    if not isinstance(link, h5py.HardLink):
        raise ShardError(f"has an HDF5 {type(link).__name__} as {field.name!r}; links are refused")
    dataset = file[field.name]
    if not isinstance(dataset, h5py.Dataset):
        raise ShardError(f"has an HDF5 {type(dataset).__name__} as {field.name!r} where a dataset is needed")
    created = dataset.id.get_create_plist()
    # The layout comes first: even asking a virtual dataset for its shape may open other files.
    if created.get_layout() != h5py.h5d.CONTIGUOUS or created.get_external_count() or created.get_nfilters():
        raise ShardError(f"stores {field.name!r} as {_layout(created)}; only contiguous, unfiltered data are read")
    if dataset.dtype != field.stored or dataset.shape != shape:
        raise ShardError(
            f"stores {field.name!r} as {dataset.dtype} {dataset.shape} where {field.stored} {shape} is declared"
        )
    place = dataset.id.get_offset()
    if place is None or dataset.id.get_storage_size() != dataset.nbytes or place + dataset.nbytes > len(content):
        raise ShardError(f"has no data behind {field.name!r}, which would read as zeros")
    return np.frombuffer(content, field.stored, math.prod(shape), place).reshape(shape)


def _layout(created: h5py.h5p.PropDCID) -> str:
    if created.get_layout() == h5py.h5d.VIRTUAL:
        return "a virtual dataset"
    if created.get_external_count():
        return "a dataset in another file"
    filters = [created.get_filter(index)[3].decode(errors="replace") for index in range(created.get_nfilters())]
    return f"a chunked or compact dataset with the filters {filters}"
