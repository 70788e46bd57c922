"""What a buffer is said to hold is what a reader gets, and what is lost is missed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from buffer_samples import HEADER, columns, images, name, write

from orl_ldm.buffer import BufferWriter, read
from orl_ldm.buffer.gaps import missing, range_name
from orl_ldm.buffer.summary import summarize
from orl_ldm.errors import UserError


def test_a_summary_counts_what_a_reader_reads(tmp_path: Path) -> None:
    overlapping = columns(1, (2, 3, 2, 4))
    BufferWriter(tmp_path, HEADER).write("wide", overlapping, images(overlapping))
    write(tmp_path, 3), write(tmp_path, 6, "zarr", header=replace(HEADER, behavior_id="policy-1"))
    damaged = write(tmp_path, 9)
    (tmp_path / damaged.data).write_bytes(b"x")
    summary, rows = summarize(tmp_path), read(tmp_path)
    starts, stops = rows.episode_bounds.T
    assert (summary.rows, len(summary.returns)) == (len(rows.rewards), len(starts))
    np.testing.assert_allclose(np.sort(summary.returns), np.sort(np.add.reduceat(rows.rewards, starts)), rtol=1e-5)
    for index, term in enumerate(HEADER.term_names):
        np.testing.assert_array_equal(np.sort(summary.terms[term]), np.sort(rows.values[stops - 1, index]))
    assert summary.timeouts == rows.timeouts.sum()
    assert summary.images == len(np.unique(rows.image_id)) and summary.scenes == {"forest": len(starts)}
    assert summary.behaviors == {("uniform", 42): 5, ("policy-1", 42): 3}
    assert summary.shards == 3 and list(summary.bad) == [name(9)]


def test_there_is_nothing_to_sum_up_where_nothing_is_sound(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="it has no shards; collect into it first"):
        summarize(tmp_path)
    described = write(tmp_path, 0)
    (tmp_path / described.data).unlink()
    with pytest.raises(UserError, match=f"nothing to read in .*: shard {name(0)} has no data"):
        summarize(tmp_path)


@pytest.mark.parametrize(
    ("names", "lost"),
    [
        (["a-000000-000004", "a-000004-000008", "a-000008-000009"], []),
        (["a-000000-000004", "a-000008-000012"], ["a-000004-000008"]),
        (["a-000000-000004", "b-000000-000004", "b-000012-000016"], ["b-000004-000012"]),
        (["a-000000-000008", "a-000002-000004", "a-000009-000010"], ["a-000008-000009"]),
        (["a-000004-000008", "other", "a-1-2"], ["a-000000-000004"]),
        (["a-000000-1000000", "a-1000004-1000008"], ["a-1000000-1000004"]),
        ([range_name("a", 0, 4, 8), range_name("a", 4, 8, 8)], []),
        ([range_name("a", 0, 4, 12)], ["a-000004-000012"]),
        (
            [range_name("a", 4, 8, 12), range_name("a", 12, 14, 14)],
            ["a-000000-000004", "a-000008-000012", "a-000000-000012"],
        ),
    ],
)
def test_a_lost_shard_is_missed(names: list[str], lost: list[str]) -> None:
    assert [gap for gap, _ in missing(names)] == lost
