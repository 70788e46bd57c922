"""Reading parts of a buffer, with other rewards, within a memory limit, and as minibatches."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from buffer_samples import HEADER, columns, images, name, write

from orl_ldm.buffer import BufferWriter, ImageRef, Transitions, memory, read
from orl_ldm.buffer.minibatches import Minibatches
from orl_ldm.buffer.selection import Selection
from orl_ldm.errors import UserError
from orl_ldm.reward import SETTINGS, TERMS, RewardWeights, compose

LOGGED = replace(HEADER, term_names=TERMS)


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Two shards, of two behaviours; odd images are rivers."""
    for unit, behavior in ((0, "uniform"), (3, "policy-1")):
        header = replace(LOGGED, behavior_id=behavior)
        data = columns(unit, header=header)
        refs = [ImageRef(ref.image_id, ref.name, ("forest", "river")[ref.image_id % 2]) for ref in images(data)]
        BufferWriter(tmp_path / "buffer", header).write(name(unit), data, refs)
    return tmp_path / "buffer"


def last_rows(transitions: Transitions) -> list[int]:
    return (transitions.episode_bounds[:, 1] - 1).tolist()


def test_a_scene(scenes: Path) -> None:
    found = read(scenes, select=Selection(scenes=("river",)))
    assert found.image_id[last_rows(found)].tolist() == [1, 3, 5]
    whole = read(scenes)
    np.testing.assert_array_equal(found.observations, whole.observations[whole.image_id % 2 == 1])


def test_a_behaviour(scenes: Path) -> None:
    found = read(scenes, select=Selection(behaviors=("policy-1",)))
    assert found.shards == (name(3),)
    np.testing.assert_array_equal(found.observations, columns(3, header=LOGGED)["observations"])


def test_quality_by_terms(scenes: Path) -> None:
    psnr = read(scenes).values[last_rows(read(scenes)), 0]
    found = read(scenes, select=Selection(at_least={"psnr": 0.5}))
    assert np.array_equal(found.values[last_rows(found), 0], psnr[psnr >= 0.5]) and 0 < len(found) < len(read(scenes))
    found = read(scenes, select=Selection(at_most={"psnr": 0.5}))
    assert np.array_equal(found.values[last_rows(found), 0], psnr[psnr <= 0.5])


def test_the_better_half_by_reward_under_weights_given_at_reading(scenes: Path) -> None:
    weights = RewardWeights(psnr=0, ssim=1, lpips=0, nfe=0)
    whole = read(scenes, weights=weights)
    found = read(scenes, weights=weights, select=Selection(reward_quantile=0.5))
    assert len(found.episode_bounds) == len(whole.episode_bounds) // 2
    assert found.rewards.max() == whole.rewards.max()


def test_rewards_are_composed_anew_from_the_raw_terms(scenes: Path) -> None:
    weights = RewardWeights(psnr=0.1, ssim=0.2, lpips=0.3, nfe=0.4)
    found = read(scenes, weights=weights)
    last = last_rows(found)
    np.testing.assert_allclose(found.rewards[last], compose(found.values[last], weights, LOGGED.nfe_max), rtol=1e-6)
    assert np.count_nonzero(np.delete(found.rewards, last)) == 0
    assert found.header.reward_weights == {"psnr": 0.1, "ssim": 0.2, "lpips": 0.3, "nfe": 0.4}


def test_what_cannot_be_selected_is_said(scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no episode of .* passes .*'lake'.*relax the filters"):
        read(scenes, select=Selection(scenes=("lake",)))
    with pytest.raises(UserError, match="logs no term 'speed' to select by; choose of psnr"):
        read(scenes, select=Selection(at_least={"speed": 1}))
    with pytest.raises(UserError, match="reward_quantile is 2"):
        Selection(reward_quantile=2)
    write(tmp_path / "other", 0)
    with pytest.raises(UserError, match="rewards cannot be weighed anew: the buffer logs psnr, ssim, seconds where"):
        read(tmp_path / "other", weights=SETTINGS["paper"])


def test_columns_beyond_the_memory_limit_are_mapped_and_equal(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORL_LDM_CACHE", str(tmp_path / "cache"))
    (next(scenes.glob(f"{name(3)}*.h5"))).rename(tmp_path / "lost")
    write(scenes, 6, header=LOGGED)
    whole, mapped = read(scenes), read(scenes, memory_limit=100)
    for key, column in whole.columns.items():
        np.testing.assert_array_equal(mapped.columns[key], column)
    assert mapped.shards == (name(0), name(6))
    assert isinstance(mapped.observations.base, np.memmap) or mapped.observations.base is not None
    assert not any(path.is_file() for path in (tmp_path / "cache").rglob("*"))  # the files have no names


def test_no_room_to_map_columns_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"cannot map .* GiB below .*; make room, or set ORL_LDM_CACHE"):
        memory.empty((3,), np.float32, tmp_path / "file")
    with pytest.raises(UserError, match=r"GiB of memory; set memory_limit"):
        memory.empty((2**50,), np.float32)


def test_an_epoch_of_minibatches_has_every_transition_once(scenes: Path) -> None:
    whole = read(scenes)
    batches = list(Minibatches(whole, 5, seed=1).epoch())
    assert [len(batch.rewards) for batch in batches] == [5, 5, 2]
    seen = torch.cat([batch.observations for batch in batches]).numpy()
    np.testing.assert_array_equal(np.sort(seen, axis=0), np.sort(whole.observations, axis=0))


def test_what_follows_is_of_the_same_episode(scenes: Path) -> None:
    whole = read(scenes)
    ends = whole.terminals | whole.timeouts
    following = {
        tuple(row): tuple(whole.observations[i if ends[i] else i + 1]) for i, row in enumerate(whole.observations)
    }
    batch = Minibatches(whole, 12, seed=1).draw()
    for now, later in zip(batch.observations.tolist(), batch.next_observations.tolist(), strict=True):
        assert following[tuple(now)] == tuple(later)


def test_draws_are_uniform_and_repeatable(scenes: Path) -> None:
    whole = read(scenes)
    draws = Minibatches(whole, 12, seed=1)
    rows = {tuple(row): i for i, row in enumerate(whole.observations.tolist())}
    drawn = [rows[tuple(row)] for _ in range(1000) for row in draws.draw().observations.tolist()]
    counts = np.bincount(drawn, minlength=len(whole))  # 1000 +- 30 each
    assert counts.min() > 850 and counts.max() < 1150
    one, other = Minibatches(whole, 3, seed=5).draw(), Minibatches(whole, 3, seed=5).draw()
    assert torch.equal(one.observations, other.observations)
    with pytest.raises(UserError, match="batch_size is 13; give 1 to 12"):
        Minibatches(whole, 13, seed=1)
