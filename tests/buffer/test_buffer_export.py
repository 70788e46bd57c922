"""Exports are loaded back by the libraries that they are for, with equal numbers."""

import sys
from dataclasses import replace
from pathlib import Path

import d3rlpy
import datasets
import minari
import numpy as np
import pytest
from buffer_samples import HEADER, write

from orl_ldm.buffer import Transitions, read
from orl_ldm.buffer.export import export
from orl_ldm.errors import UserError
from orl_ldm.reward import SETTINGS, compose

BALANCED = SETTINGS["balanced"]


@pytest.fixture
def transitions(tmp_path: Path) -> Transitions:
    """Two behaviours, both of which have an episode 3."""
    write(tmp_path / "a", 0), write(tmp_path / "a", 3)
    write(tmp_path / "b", 3, noise=1, header=replace(HEADER, behavior_id="policy-1"))
    return read([tmp_path / "a", tmp_path / "b"])


def composed(transitions: Transitions) -> np.ndarray:
    """(N,) float32 rewards, from the formula."""
    return (compose(transitions.terms, BALANCED, HEADER.nfe_max) * transitions.terminals).astype(np.float32)


def test_d3rlpy_loads_its_replay_buffer(tmp_path: Path, transitions: Transitions) -> None:
    export(transitions, tmp_path / "buffer.h5", "d3rlpy", BALANCED)
    with (tmp_path / "buffer.h5").open("rb") as file:
        episodes = d3rlpy.dataset.load(d3rlpy.dataset.Episode, file)
        loaded = d3rlpy.dataset.ReplayBuffer.load(file, d3rlpy.dataset.InfiniteBuffer())
    for episode, (start, stop) in zip(episodes, transitions.episode_bounds, strict=True):
        np.testing.assert_array_equal(episode.observations, transitions.observations[start:stop])
        np.testing.assert_array_equal(episode.actions, transitions.actions[start:stop])
        np.testing.assert_array_equal(episode.rewards[:, 0], composed(transitions)[start:stop])
        assert episode.observations.dtype == episode.actions.dtype == episode.rewards.dtype == np.float32
        assert episode.terminated
    assert loaded.transition_count == loaded.buffer.transition_count == len(transitions)
    assert loaded.sample_transition_batch(4).observations.shape == (4, 3)


def test_minari_loads_its_dataset(tmp_path: Path, transitions: Transitions, monkeypatch: pytest.MonkeyPatch) -> None:
    export(transitions, tmp_path / "minari" / "steering-v0", "minari", BALANCED)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    loaded = minari.load_dataset("steering-v0")
    bounds = transitions.episode_bounds
    assert (loaded.total_episodes, loaded.total_steps) == (len(bounds), len(transitions))
    np.testing.assert_array_equal(loaded.action_space.high, np.float32(HEADER.action_high))
    for episode, (start, stop) in zip(loaded.iterate_episodes(), bounds, strict=True):
        np.testing.assert_array_equal(episode.observations[:-1], transitions.observations[start:stop])
        np.testing.assert_array_equal(episode.observations[-1], transitions.observations[stop - 1])
        np.testing.assert_array_equal(episode.actions, transitions.actions[start:stop])
        np.testing.assert_array_equal(episode.rewards, composed(transitions)[start:stop])
        np.testing.assert_array_equal(episode.terminations, transitions.terminals[start:stop])
        assert not episode.truncations.any()


def test_datasets_loads_the_parquet(tmp_path: Path, transitions: Transitions) -> None:
    out = tmp_path / "buffer.parquet"
    export(transitions, out, "parquet", BALANCED)
    loaded = datasets.load_dataset(
        "parquet", data_files=str(out), split="train", cache_dir=str(tmp_path / "cache")
    ).with_format("numpy")
    for key, column in transitions.columns.items():
        np.testing.assert_array_equal(loaded[:][key], column)
        assert loaded[:][key].dtype == column.dtype
    np.testing.assert_array_equal(loaded[:]["rewards"], composed(transitions))
    starts, stops = transitions.episode_bounds.T
    np.testing.assert_array_equal(loaded[:]["episode"], np.repeat(np.arange(9), stops - starts))
    assert loaded[0]["image"] == "forest_000.png" and loaded[0]["scene"] == "forest"


@pytest.mark.parametrize(("form", "module"), [("d3rlpy", "d3rlpy"), ("minari", "minari"), ("parquet", "pyarrow")])
def test_a_library_that_is_absent_is_named_with_its_extra(
    tmp_path: Path, transitions: Transitions, monkeypatch: pytest.MonkeyPatch, form: str, module: str
) -> None:
    for loaded in [key for key in sys.modules if key.split(".")[0] == module]:
        monkeypatch.setitem(sys.modules, loaded, None)
    with pytest.raises(UserError, match=rf"this format needs {module}: pip install -e '.\[export\]'"):
        export(transitions, tmp_path / "x" / "out-v0", form, BALANCED)  # type: ignore[arg-type]
    assert list((tmp_path / "x").iterdir()) == []


def test_nothing_is_overwritten_and_names_are_checked(tmp_path: Path, transitions: Transitions) -> None:
    (tmp_path / "there.h5").write_text("mine")
    with pytest.raises(UserError, match=r"there.h5' exists already; give another name"):
        export(transitions, tmp_path / "there.h5", "d3rlpy", BALANCED)
    with pytest.raises(UserError, match="Minari does not accept the name 'plain'; give one that ends in a version"):
        export(transitions, tmp_path / "plain", "minari", BALANCED)
    with pytest.raises(UserError, match=r"cannot write .*there.h5/in"):
        export(transitions, tmp_path / "there.h5" / "in", "d3rlpy", BALANCED)
    assert (tmp_path / "there.h5").read_text() == "mine"


def test_other_reward_terms_make_no_reward(tmp_path: Path) -> None:
    write(tmp_path / "a", 0, header=replace(HEADER, term_names=("psnr", "joules")))
    with pytest.raises(UserError, match="the buffer logs the terms psnr, joules; needed are psnr, ssim"):
        export(read(tmp_path / "a"), tmp_path / "x.parquet", "parquet", BALANCED)
