"""A training run: repeatable to the bit, resumed as if never stopped, and clear about what is wrong."""

import csv
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import toy_processes as toys
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from orl_ldm.alone import alone
from orl_ldm.config import build
from orl_ldm.errors import UserError
from orl_ldm.learn import BPPOConfig, CriticConfig, JudgeConfig, PPOConfig, TrainConfig, train
from orl_ldm.learn.bppo import BPPO
from orl_ldm.learn.checkpoint import load as load_checkpoint
from orl_ldm.learn.critics import Critics
from orl_ldm.learn.metrics import Metrics
from orl_ldm.learn.ppo import PPO
from orl_ldm.policy import load_policy

EPOCHS = 4
TINY = {
    "critics": CriticConfig(critic_hidden=(16, 16), batch_size=32, epochs=EPOCHS, steps=5),
    "ppo": PPOConfig(epochs=EPOCHS, draws=100, batch_size=32, passes=2),
    "bppo": BPPOConfig(fit_epochs=2, epochs=EPOCHS, batch_size=32, steps=5),
}
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


@pytest.fixture(params=["critics", "ppo", "bppo"])
def config(request: pytest.FixtureRequest, buffer: Path, tmp_path: Path) -> TrainConfig:
    return TrainConfig(
        (str(buffer),),
        str(tmp_path / "run"),
        request.param,
        weights=toys.WEIGHTS,
        hidden=(16, 16),
        device="cpu",
        critics=TINY["critics"],  # type: ignore[arg-type]
        ppo=TINY["ppo"],  # type: ignore[arg-type]
        bppo=TINY["bppo"],  # type: ignore[arg-type]
        judge=JudgeConfig(steps=20),
    )


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


def test_the_same_buffer_and_seed_give_the_same_policy(config: TrainConfig) -> None:
    policy, again = train(config, progress=False), train(elsewhere(config), progress=False)
    assert weights(policy) == weights(again)
    other = train(replace(config, seed=43, out=config.out + "-43"), progress=False)
    assert weights(policy) != weights(other)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_a_checkpoint_that_goes_on_bit_equal(
    config: TrainConfig, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_metrics_have_their_canonical_names(config: TrainConfig) -> None:
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


def test_a_learning_rate_that_explodes_ends_in_a_sentence(config: TrainConfig) -> None:
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
    with alone(Path(config.out) / ".lock", ""), pytest.raises(UserError, match="another process trains in"):
        train(config, progress=False)
    train(config, progress=False)  # it is free again


def test_a_folder_that_cannot_be_is_named(config: TrainConfig, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is, or lies below, a file: name a folder"):
        train(replace(config, out=str(tmp_path / "file" / "run")), progress=False)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"algo": "ppo"}, "train.dial does not go with train.algo=ppo"),
        ({"term_scale": "within_image"}, "train.dial does not go with train.term_scale=within_image"),
    ],
)
def test_what_a_dial_cannot_do_is_said(buffer: Path, tmp_path: Path, setting: dict[str, Any], message: str) -> None:
    config = TrainConfig((str(buffer),), str(tmp_path / "run"), dial=True)
    with pytest.raises(UserError, match=message):
        train(replace(config, **setting), progress=False)


def test_a_policy_says_where_it_comes_from(config: TrainConfig) -> None:
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
    with pytest.raises(UserError, match=r"critics\.critics = 1"):
        build(TrainConfig, {**table, "critics": {"critics": 1}}, "here")
    with pytest.raises(UserError, match=r"ppo\.passes = 0"):
        build(TrainConfig, {**table, "ppo": {"passes": 0}}, "here")
    with pytest.raises(UserError, match=r"hidden\.0 = -3"):
        build(TrainConfig, {**table, "hidden": [-3]}, "here")
    with pytest.raises(UserError, match=r"seed = -1"):
        build(TrainConfig, {**table, "seed": -1}, "here")
    with pytest.raises(UserError, match=r"weights\.ssim.*required"):
        build(TrainConfig, {**table, "weights": {"psnr": 1.0, "lpips": 0.0, "nfe": 0.0}}, "here")
    for psnr in (0.0, -1.0, float("nan")):
        with pytest.raises(UserError, match="finite numbers from 0 on, and not all of them 0"):
            build(TrainConfig, {**table, "weights": {"psnr": psnr, "ssim": 0, "lpips": 0, "nfe": 0}}, "here")


def test_learning_needs_no_diffusion_and_no_images() -> None:
    code = "import orl_ldm.learn, sys; print(*sys.modules)"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert "orl_ldm.learn.critics" in loaded
    for name in ("diffusers", "torchvision", "orl_ldm.diffusion", "orl_ldm.images", "orl_ldm.env", "d3rlpy"):
        assert name not in loaded
