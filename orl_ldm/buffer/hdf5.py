"""HDF5 shards: one file, one contiguous, unfiltered dataset for each column in the root group.

Nothing is compressed: a shard is a few kilobytes of noise-like floats, and without filters a file cannot expand in
memory. Sizes are checked before anything is allocated, and everything that could point out of the file is refused.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from orl_ldm.buffer.schema import Columns, FieldSpec, ShardError


def encode(columns: Columns) -> dict[str, bytes]:
    """The file's content; h5py stores no times, so the same columns give the same bytes."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, column in columns.items():
            file.create_dataset(name, data=column)
    return {"": buffer.getvalue()}


def decode(files: Mapping[str, bytes], fields: Sequence[FieldSpec], rows: int) -> dict[str, npt.NDArray[Any]]:
    """Columns (rows, *shape) in their stored dtypes. Raises ShardError for links, foreign data or other layouts."""
    with h5py.File(io.BytesIO(files[""]), "r") as file:
        if difference := set(file) ^ {field.name for field in fields}:
            raise ShardError(f"has missing or unknown HDF5 objects: {', '.join(sorted(difference)[:10])}")
        return {field.name: _read(file, field, (rows, *field.shape)) for field in fields}


def _read(file: h5py.File, field: FieldSpec, shape: tuple[int, ...]) -> npt.NDArray[Any]:
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
    if dataset.id.get_storage_size() != dataset.nbytes:
        raise ShardError(f"has no data behind {field.name!r}, which would read as zeros")
    column = np.empty(shape, dtype=field.stored)
    dataset.read_direct(column)
    return column


def _layout(created: h5py.h5p.PropDCID) -> str:
    if created.get_layout() == h5py.h5d.VIRTUAL:
        return "a virtual dataset"
    if created.get_external_count():
        return "a dataset in another file"
    filters = [created.get_filter(index)[3].decode(errors="replace") for index in range(created.get_nfilters())]
    return f"a chunked or compact dataset with the filters {filters}"
