"""A training run: repeatable to the bit, resumed as if never stopped, and clear about what is wrong."""

import csv
import os
import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import toy_processes as toys
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from orl_ldm.config import build
from orl_ldm.errors import UserError
from orl_ldm.learn import BPPOConfig, CriticConfig, JudgeConfig, PPOConfig, TrainConfig, algorithms, train
from orl_ldm.learn.bppo import BPPO
from orl_ldm.learn.checkpoint import load as load_checkpoint
from orl_ldm.learn.config import RunConfig
from orl_ldm.learn.critics import Critics
from orl_ldm.learn.data import Dataset
from orl_ldm.learn.learner import Metrics, Parts
from orl_ldm.learn.ppo import PPO
from orl_ldm.locks import locked
from orl_ldm.policy import BetaPolicy, load_policy

EPOCHS = 4
LEARNERS: dict[str, type[Critics] | type[PPO] | type[BPPO]] = {"critics": Critics, "ppo": PPO, "bppo": BPPO}
NAMES = {
    *("losses/policy_loss", "losses/value_loss", "losses/entropy", "losses/approx_kl", "losses/clipfrac"),
    *("losses/explained_variance", "offline/effective_sample_size", "offline/largest_ratio"),
    *("offline/estimated_reward", "charts/SPS", "policy/entropy_go", "policy/entropy_aim"),
    *("policy/saturation", "policy/at_limit"),
}


@pytest.fixture(scope="module")
def buffer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("buffer")
    toys.collect(toys.Patience(), folder, images=10, rollouts=4)
    return folder


@pytest.fixture
def config(buffer: Path, tmp_path: Path) -> TrainConfig:
    return TrainConfig(
        (str(buffer),),
        str(tmp_path / "run"),
        "ppo",
        weights=toys.WEIGHTS,
        hidden=(16, 16),
        device="cpu",
        critics=CriticConfig(critic_hidden=(16, 16), batch_size=32, epochs=EPOCHS, steps=5),
        ppo=PPOConfig(epochs=EPOCHS, steps_per_epoch=100, batch_size=32, update_epochs=2),
        bppo=BPPOConfig(fit_epochs=2, epochs=EPOCHS, batch_size=32, steps=5),
        judge=JudgeConfig(steps=20),
    )


@pytest.fixture(params=LEARNERS)
def each(request: pytest.FixtureRequest, config: TrainConfig) -> TrainConfig:
    """The configuration with each algorithm."""
    return replace(config, algo=request.param)


def weights(policy: Path) -> dict[str, list[float]]:
    return {name: tensor.flatten().tolist() for name, tensor in load_file(policy / "policy.safetensors").items()}


def rows(config: TrainConfig) -> list[dict[str, str]]:
    with (Path(config.out) / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def elsewhere(config: TrainConfig) -> TrainConfig:
    return replace(config, out=config.out + "-straight")


def strike(monkeypatch: pytest.MonkeyPatch, config: TrainConfig, epoch: int, blow: Metrics | int | Exception) -> None:
    """Make one epoch, counted from 0, return NaN, send this process a signal, or raise."""
    kind = LEARNERS[config.algo]
    original = kind.epoch

    def struck(self: Critics | PPO | BPPO, index: int) -> Metrics:
        metrics = original(self, index)  # type: ignore[arg-type]
        if index == epoch:
            if isinstance(blow, Exception):
                raise blow
            if isinstance(blow, int):
                os.kill(os.getpid(), blow)
            else:
                return metrics | blow
        return metrics

    monkeypatch.setattr(kind, "epoch", struck)


def checkpoint_always(monkeypatch: pytest.MonkeyPatch, seconds: float = -1.0) -> None:
    monkeypatch.setattr(sys.modules["orl_ldm.learn.train"], "CHECKPOINT_SECONDS", seconds)


def test_the_same_buffer_and_seed_give_the_same_policy(each: TrainConfig) -> None:
    config = each
    policy, again = train(config, progress=False), train(elsewhere(config), progress=False)
    assert weights(policy) == weights(again)
    other = train(replace(config, seed=43, out=config.out + "-43"), progress=False)
    assert weights(policy) != weights(other)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_a_checkpoint_that_resumes_bit_equal(
    each: TrainConfig, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = each
    before = signal.getsignal(signal.SIGINT)  # a shell may have started this process with it ignored
    with monkeypatch.context() as patch:
        strike(patch, config, 1, number)
        with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else SystemExit):
            train(config, progress=False)
    assert len(rows(config)) == 2
    assert signal.getsignal(signal.SIGINT) is before
    resumed, straight = train(config, progress=False), train(elsewhere(config), progress=False)
    assert weights(resumed) == weights(straight)


def test_a_kill_loses_only_what_came_after_the_checkpoint(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Epoch 3 is in the CSV and not in the checkpoint; resuming trains and writes it again, once."""
    with monkeypatch.context() as patch:
        checkpoint_always(patch)
        strike(patch, config, 2, RuntimeError("killed"))
        with pytest.raises(RuntimeError, match="killed"):
            train(config, progress=False)
    stray = (Path(config.out) / "metrics.csv").read_text().splitlines()[-1].replace("2,", "3,", 1)
    with (Path(config.out) / "metrics.csv").open("a") as file:
        file.write(stray + "\n4,0.1")
    resumed, straight = train(config, progress=False), train(elsewhere(config), progress=False)
    assert weights(resumed) == weights(straight)
    assert [row["epoch"] for row in rows(config)] == ["1", "2", "3", "4"]
    columns = NAMES - {"charts/SPS"}
    assert [{c: r[c] for c in columns} for r in rows(config)] == [
        {c: r[c] for c in columns} for r in rows(elsewhere(config))
    ]


def test_metrics_have_their_canonical_names(each: TrainConfig) -> None:
    config = each
    train(config, progress=False)
    assert set(rows(config)[0]) == NAMES | {"epoch"}
    events = EventAccumulator(str(Path(config.out) / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == NAMES
    assert [e.step for e in events.Scalars("losses/entropy")] == [1, 2, 3, 4]


def test_nan_stops_the_run_and_keeps_the_last_good_checkpoint(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        checkpoint_always(patch)
        strike(patch, config, 2, {"losses/value_loss": float("nan")})
        with pytest.raises(UserError, match="losses/value_loss is nan in epoch 3; the last good checkpoint is kept"):
            train(config, progress=False)
    assert not (Path(config.out) / "policy").exists()
    resumed, straight = train(config, progress=False), train(elsewhere(config), progress=False)
    assert weights(resumed) == weights(straight)


def test_a_learning_rate_that_explodes_ends_in_a_sentence(each: TrainConfig) -> None:
    config = each
    wild = {
        "critics": replace(config.critics, learning_rate=1e30),
        "ppo": replace(config.ppo, learning_rate=1e30),
        "bppo": replace(config.bppo, learning_rate=1e30),
    }
    with pytest.raises(UserError, match="in epoch 1; there is no checkpoint yet: lower the learning rate"):
        train(replace(config, **wild), progress=False)  # type: ignore[arg-type]


def test_a_finished_run_is_not_trained_again(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = train(config, progress=False)
    strike(monkeypatch, config, 0, RuntimeError("trained again"))
    assert train(config, progress=False) == policy
    assert train(replace(config, buffers=(config.buffers[0] + "/",)), progress=False) == policy  # the same data


def test_another_configuration_starts_anew_and_says_so(config: TrainConfig, capsys: pytest.CaptureFixture[str]) -> None:
    train(config, progress=False)
    policy = train(replace(config, seed=1), progress=True)
    assert "training starts anew" in " ".join(capsys.readouterr().err.split())
    assert load_policy(policy)[1]["seed"] == 1
    assert len(rows(config)) == EPOCHS


def test_a_run_that_starts_anew_leaves_no_checkpoint_of_the_last(config: TrainConfig) -> None:
    train(replace(config, keep_checkpoints=2), progress=False)
    train(replace(config, keep_checkpoints=1, seed=9), progress=False)
    kept = sorted(path.name for path in (Path(config.out) / "checkpoints").iterdir())
    assert kept == [f"epoch-{EPOCHS:05d}"]


def test_two_processes_do_not_train_in_one_folder(config: TrainConfig) -> None:
    Path(config.out).mkdir()
    with locked(Path(config.out) / ".lock", ""), pytest.raises(UserError, match="another process trains in"):
        train(config, progress=False)
    train(config, progress=False)  # it is free again


def test_a_folder_that_cannot_be_is_named(config: TrainConfig, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is, or lies below, a file: name a folder"):
        train(replace(config, out=str(tmp_path / "file" / "run")), progress=False)


def test_critics_need_to_know_the_first_decision(config: TrainConfig, tmp_path: Path) -> None:
    toys.collect(toys.Aim(), tmp_path / "aim", images=2)
    with pytest.raises(UserError, match=r"train\.algo=critics needs the feature 'position/decision'"):
        train(replace(config, algo="critics", buffers=(str(tmp_path / "aim"),)), progress=False)


@dataclass(frozen=True)
class Still:
    """A whole algorithm: it never moves its policy."""

    epochs: int = 2
    batch_size: int = 1
    steps: int = 1

    def create(self, data: Dataset, run: RunConfig) -> "Still":
        policy = BetaPolicy(data.spec, run.hidden)
        learner = Still()
        object.__setattr__(learner, "policy", policy)
        object.__setattr__(learner, "parts", Parts(policy=policy))
        return learner

    def epoch(self, index: int) -> Metrics:
        return {"losses/policy_loss": 0.0}

    def values(self) -> None:
        return


def test_an_algorithm_is_one_file_and_its_entry(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The training loop adds the metrics that all have, judges, and writes the policy."""
    monkeypatch.setitem(algorithms.ALGORITHMS, "still", "ppo")
    _, facts = load_policy(train(replace(config, algo="still", ppo=Still()), progress=False))  # type: ignore[arg-type]
    assert (facts["algo"], facts["epochs"]) == ("still", 2)
    values = {"value_loss", "entropy", "approx_kl", "clipfrac", "explained_variance"}
    assert set(rows(config)[0]) == {"epoch", *NAMES} - {f"losses/{name}" for name in values}


def test_a_policy_says_where_it_comes_from(each: TrainConfig) -> None:
    config = each
    _, facts = load_policy(train(config, progress=False))
    assert facts["algo"] == config.algo
    assert (facts["setting"], facts["weights"]["psnr"]) == ("custom", 1.0)
    assert (facts["ldm_id"], facts["nfe_max"], facts["shards"]) == ("toy", 20, ["all"])
    assert (facts["episodes"], facts["images"], facts["epochs"]) == (40, 10, EPOCHS)


def test_a_damaged_checkpoint_is_named(config: TrainConfig) -> None:
    train(config, progress=False)
    path = Path(config.out) / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"checkpoint .* is damaged: .*; delete it to train anew"):
        load_checkpoint(path, {}, "any")


def test_an_unknown_device_is_named(config: TrainConfig) -> None:
    with pytest.raises(UserError, match="cannot train on device 'abacus'"):
        train(replace(config, device="abacus"), progress=False)


def test_settings_that_make_no_sense_are_named() -> None:
    table = {"buffers": ["a"], "out": "b"}
    with pytest.raises(UserError, match=r"critics\.n_critics = 1"):
        build(TrainConfig, {**table, "critics": {"n_critics": 1}}, "here")
    with pytest.raises(UserError, match=r"ppo\.update_epochs = 0"):
        build(TrainConfig, {**table, "ppo": {"update_epochs": 0}}, "here")
    with pytest.raises(UserError, match=r"hidden\.0 = -3"):
        build(TrainConfig, {**table, "hidden": [-3]}, "here")
    with pytest.raises(UserError, match=r"seed = -1"):
        build(TrainConfig, {**table, "seed": -1}, "here")
    with pytest.raises(UserError, match="unknown reward term 'speed'"):
        build(TrainConfig, {**table, "weights": {"speed": 1.0}}, "here")
    for psnr in (0.0, -1.0, float("nan")):
        with pytest.raises(UserError, match="reward weights must be finite, not negative, and not all 0"):
            build(TrainConfig, {**table, "weights": {"psnr": psnr}}, "here")
    with pytest.raises(UserError, match=r"algo = 'dqn': .*choose one of critics, ppo, bppo, d3rlpy-bc"):
        build(TrainConfig, {**table, "algo": "dqn"}, "here")
