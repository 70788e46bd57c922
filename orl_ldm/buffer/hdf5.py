"""HDF5 shards: one file, one contiguous, unfiltered dataset for each column in the root group.

Nothing is compressed: logged floats are noise-like, and without filters a file cannot expand in memory. Links and
layouts that could lead out of the file are refused before any data are read.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from orl_ldm.buffer.schema import Columns, FieldSpec, ShardError

_LINKS = {h5py.h5l.TYPE_SOFT: "soft link", h5py.h5l.TYPE_EXTERNAL: "external link"}


def encode(columns: Columns) -> dict[str, bytes]:
    """The file's content; the same columns give the same bytes, as no times are stored."""
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        for name, column in columns.items():
            file.create_dataset(name, data=column, track_times=False)
    return {"": content.getvalue()}


def decode(files: Mapping[str, bytes], fields: Sequence[FieldSpec], rows: int) -> dict[str, npt.NDArray[Any]]:
    """Columns (rows, *shape) in their stored dtypes. Raises ShardError for links or other layouts."""
    with h5py.File(io.BytesIO(files[""]), "r") as file:
        if file.userblock_size:
            raise ShardError("has something else before its HDF5 data")
        if difference := set(file) ^ {field.name for field in fields}:
            raise ShardError(f"has missing or unknown HDF5 objects: {', '.join(sorted(difference)[:10])}")
        return {field.name: _read(file, field, (rows, *field.shape)) for field in fields}


def _read(file: h5py.File, field: FieldSpec, shape: tuple[int, ...]) -> npt.NDArray[Any]:
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
    if dataset.dtype != field.stored or dataset.shape != shape:
        found = f"{dataset.dtype} {dataset.shape}"
        raise ShardError(f"stores {field.name!r} as {found} where {field.stored} {shape} is declared")
    column = np.empty(shape, field.stored)
    if dataset.get_storage_size() != column.nbytes:
        raise ShardError(f"has no data behind {field.name!r}, which would read as zeros")
    dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, column)
    return column


def _layout(created: h5py.h5p.PropDCID) -> str:
    if created.get_layout() == h5py.h5d.VIRTUAL:
        return "a virtual dataset"
    if created.get_external_count():
        return "a dataset in another file"
    filters = [created.get_filter(index)[3].decode(errors="replace") for index in range(created.get_nfilters())]
    return f"a chunked or compact dataset with the filters {filters}"
