"""The way from a local HDF5 file straight into columns: the same numbers as by parsing, and only files of ours."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest
from buffer_samples import HEADER, columns, data_files, forge, images, name, write
from hypothesis import given, settings
from hypothesis import strategies as st

from orl_ldm.buffer import SCHEMA_VERSION, BufferWriter, codec, read, straight
from orl_ldm.buffer.schema import ShardError, Sidecar, field_specs

HASHES = (codec.DIGESTS[SCHEMA_VERSION], codec.CHECKSUM)
FLOATS = {"observations", "actions", "log_probs", "rewards", "values", "potentials"}


def room(of: Sidecar) -> dict[str, npt.NDArray[Any]]:
    return {field.name: np.full((of.rows, *field.shape), 1, field.dtype) for field in of.fields}


@settings(max_examples=40, deadline=None)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=8), block=st.integers(8, 3000))
def test_it_fills_what_parsing_finds(tmp_path_factory: pytest.TempPathFactory, lengths: list[int], block: int) -> None:
    folder, data = tmp_path_factory.mktemp("straight"), columns(0, lengths)
    described = BufferWriter(folder, HEADER).write(name(0), data, images(data))
    (path,) = data_files(folder, described)
    into = room(described)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(straight, "BLOCK", block)
        filled = straight.fill(path, described, into, HASHES)
    assert filled == ((described.digest, described.checksum), FLOATS)
    parsed = codec.decode("hdf5", {"": path.read_bytes()}, described.fields, described.rows)
    for key, column in parsed.items():
        assert into[key].tobytes() == column.tobytes() == data[key].tobytes()


def test_numbers_that_are_not_finite_are_not_vouched_for(tmp_path: Path) -> None:
    described = write(tmp_path, 0)
    (path,) = data_files(tmp_path, described)
    place = path.read_bytes().index(columns(0)["potentials"].tobytes())
    with path.open("r+b") as file:
        file.seek(place)
        file.write(np.float32("nan").tobytes())
    filled = straight.fill(path, described, room(described), HASHES)
    assert filled is not None and described.digest not in filled[0] and described.checksum not in filled[0]
    assert filled[1] == FLOATS - {"potentials"}


def test_a_file_of_another_writer_is_left_to_the_parser_and_read(tmp_path: Path) -> None:
    described = write(tmp_path, 0)
    (path,) = data_files(tmp_path, described)
    with h5py.File(path, "w") as file:
        for field in field_specs(HEADER):
            file.create_dataset(field.name, data=columns(0)[field.name].astype(field.stored))
    assert straight.fill(path, described, room(described), HASHES) is None
    forge(tmp_path / "other", 0, {"": path.read_bytes()}, "hdf5")
    np.testing.assert_array_equal(read(tmp_path / "other", strict=True).observations, columns(0)["observations"])


def test_a_file_that_ends_early_or_late_is_not_taken(tmp_path: Path) -> None:
    described = write(tmp_path, 0)
    (path,) = data_files(tmp_path, described)
    content = path.read_bytes()
    path.write_bytes(content + b"x")
    assert straight.fill(path, described, room(described), HASHES) is None
    path.write_bytes(content[:-1])
    with pytest.raises(ShardError, match="cut off while they were read"):
        straight.fill(path, described, room(described), HASHES)
