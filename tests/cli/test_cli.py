"""The command line as a user meets it: what is wrong is said in one sentence, and the stages run end to end."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from orl_ldm.cli import loop
from orl_ldm.cli.main import app, main
from orl_ldm.diffusion.config import SamplerConfig
from orl_ldm.diffusion.ldm import LDM
from orl_ldm.env.rollout import roll_out
from orl_ldm.errors import UserError
from orl_ldm.images.pairs import Batch
from orl_ldm.learn.d3rlpy_learner import NAMES
from orl_ldm.learn.ope import judged_together
from orl_ldm.pipeline import load_pipeline
from orl_ldm.policy import BetaPolicy, PolicySpec, load_policy, save_policy
from orl_ldm.reward import SETTINGS

ROOT = Path(__file__).resolve().parents[2]


def call(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """(exit status, everything printed) of `orl-ldm ARGUMENTS`."""
    with pytest.raises(SystemExit) as stopped:
        main(lambda: app(list(arguments)))
    printed = capsys.readouterr()
    return int(stopped.value.code or 0), " ".join((printed.out + printed.err).split())


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("name", ["demo", "resisc45", "resisc45-local", "table1"])
def test_every_shipped_pipeline_loads(name: str) -> None:
    assert load_pipeline(name).name == name


@pytest.mark.slow
def test_the_whole_way(
    tmp_path: Path, settings: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    status, printed = call("evaluate", "demo", *settings, capsys=capsys)
    assert (status, "make train" in printed) == (2, True)
    status, printed = call("train", "demo", *settings, capsys=capsys)
    assert (status, "make collect" in printed) == (2, True)
    status, printed = call("demo", "demo", *settings, capsys=capsys)
    assert status == 0, printed
    facts = json.loads((tmp_path / "evaluate" / "facts.json").read_text())
    assert facts["images"] == 8
    page = (tmp_path / "evaluate" / "report.html").read_text()
    assert "steered" in page
    assert call("buffer", "verify", str(tmp_path / "buffer"), capsys=capsys)[0] == 0
    table = (tmp_path / "evaluate" / "per_image.csv").read_bytes()
    curve = (tmp_path / "evaluate" / "figures" / "figure3_training.png").read_bytes()
    monkeypatch.chdir(tmp_path)
    elsewhere = (str(ROOT / "pipelines" / "demo.toml"), *settings, "--set=evaluate.out=evaluate")
    assert call("report", *elsewhere, capsys=capsys)[0] == 0
    monkeypatch.chdir(ROOT)
    again = (tmp_path / "evaluate" / "figures" / "figure3_training.png").read_bytes()
    assert again == curve  # that of the training whose policy was evaluated, not of the pipeline's own
    best = f"--set=train.out={tmp_path}/train-round2"  # the last, where too few images are held out to judge by
    (tmp_path / "train-round2" / "metrics.csv").unlink()  # as where a policy was copied from another machine
    assert call("evaluate", "demo", *settings, best, capsys=capsys)[0] == 0
    assert (tmp_path / "evaluate" / "per_image.csv").read_bytes() == table  # read back, not computed again

    shard = next((tmp_path / "buffer").glob("*.h5"))
    shard.write_bytes(shard.read_bytes()[:-1])
    status, printed = call("buffer", "verify", str(tmp_path / "buffer"), capsys=capsys)
    assert status == 1
    assert shard.name.split(".")[0] in printed

    spec = PolicySpec(("a",), ("step",), (0.0,), (1.0,))
    save_policy(BetaPolicy(spec, (8,)), tmp_path / "train" / "policy", {"weights": {}})
    status, printed = call("evaluate", "demo", *settings, capsys=capsys)
    assert (status, "other observation features" in printed) == (2, True)
    assert f"later rounds exist: {tmp_path}/train-round1, {tmp_path}/train-round2" in printed


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["collect", "demo", "--set", "collect.imags=3"], "there is no setting 'collect.imags'"),
        (["collect", "demo", "--set", "nonsense"], "is not of the form section.key=value"),
        (["collect", "demo", "--set", "collect=3"], "'collect' is a section of settings"),
        (["collect", "demo", "--set", "collect.images=many"], "collect.images = 'many'"),
        (["collect", "demo", "--set", "ldm.id=./nowhere"], "there is no LDM at './nowhere'"),
        (["collect", "demo", "--set", "collect.rollouts=0"], "collect.rollouts = 0: Input should be greater than 0"),
        (["collect", "demo", "--set", "sampler.nfe_max=-1"], "sampler.nfe_max = -1"),
        (["collect", "nowhere"], "there is no pipeline"),
        (["collect", "demo", "--set", "collect.prefer=paper"], "name one with collect.policy"),
        (["train", "demo", "--set", "train.setting=best", "--set", "train.buffers=['.']"], "unknown reward setting"),
        (["buffer", "verify", "./nowhere"], "nowhere"),
        (["pretrain", "nowhere.toml"], "there is no pipeline 'nowhere.toml'; there are: pretrain, pretrain-large"),
        (["report", "demo", "--set", "evaluate.out=./nowhere"], "make evaluate"),
    ],
)
def test_mistakes_are_explained(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, printed = call(*arguments, capsys=capsys)
    assert status == 2
    assert sentence in printed
    assert "Traceback" not in printed


def test_a_collection_keeps_out_of_a_buffer_that_it_does_not_fit(
    tmp_path: Path, settings: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("collect", "demo", *settings, capsys=capsys)[0] == 0
    there = sorted((tmp_path / "buffer").iterdir())
    status, printed = call("collect", "demo", *settings, "--set", "sampler.t_floor=0.02", capsys=capsys)
    assert status == 2
    assert "could not be read together: its pipeline_digest" in printed and "--set collect.out=..." in printed
    for other in ("data.test_split=other", "train.setting=perceptual"):
        again = call("collect", "demo", *settings, "--set", other, capsys=capsys)[1]
        assert "1 of 1 shards were there already" in again
    assert sorted((tmp_path / "buffer").iterdir()) == there


@pytest.mark.slow
def test_a_loop_with_other_settings_leaves_the_last_one_s_rounds_alone(
    tmp_path: Path, settings: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("loop", "demo", "--rounds=1", *settings, capsys=capsys)[0] == 0
    there = sorted((tmp_path / "buffer-round1").iterdir())
    status, printed = call("loop", "demo", "--rounds=1", *settings, "--set", "train.seed=1", capsys=capsys)
    assert (status, "of another collection; write to another folder" in printed) == (2, True)
    status, printed = call("loop", "demo", "--rounds=1", "--rollouts=2", *settings, capsys=capsys)
    assert (status, "of another collection; write to another folder" in printed) == (2, True)
    assert sorted((tmp_path / "buffer-round1").iterdir()) == there
    assert call("loop", "demo", "--rounds=1", *settings, capsys=capsys)[0] == 0  # trained as before, it goes on


@pytest.mark.parametrize("setting", ['evaluate.frontier=["fidelty=1"]', 'evaluate.spandrel=["./nowhere.pth"]'])
def test_mistakes_are_found_before_the_search(
    tmp_path: Path, settings: list[str], capsys: pytest.CaptureFixture[str], setting: str
) -> None:
    assert call("collect", "demo", *settings, capsys=capsys)[0] == 0
    assert call("train", "demo", *settings, "--set", "train.preference_conditioned=true", capsys=capsys)[0] == 0
    assert call("evaluate", "demo", *settings, "--set", setting, capsys=capsys)[0] == 2
    assert not (tmp_path / "evaluate").exists()


@pytest.mark.parametrize("size", [1, 20])
def test_small_images_are_refused(
    tmp_path: Path, settings: list[str], capsys: pytest.CaptureFixture[str], size: int
) -> None:
    (tmp_path / "images" / "train" / "a").mkdir(parents=True)
    Image.new("RGB", (size, size)).save(tmp_path / "images" / "train" / "a" / "one.png")
    status, printed = call("collect", "demo", *settings, "--set", f"data.source={tmp_path / 'images'}", capsys=capsys)
    assert status == 2
    assert f"is {size}x{size} pixels; this pipeline needs at least 32x32" in printed


def test_learning_needs_none_of_the_ldm_s_libraries() -> None:
    """`orl-ldm train` up to the missing buffer, with diffusers and its kin made impossible to import."""
    program = (
        "import sys\n"
        "for name in ('diffusers', 'torchvision', 'datasets', 'lpips', 'torchmetrics'): sys.modules[name] = None\n"
        "from orl_ldm.cli.main import main, app\n"
        "import orl_ldm.learn\n"
        "main(lambda: app(['train', 'demo', '--set', 'train.buffers=[\"./nowhere\"]']))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 2, done.stderr
    assert "there is no buffer './nowhere' yet" in done.stderr


def test_user_errors_are_the_only_ones_without_a_traceback() -> None:
    def fail(error: Exception) -> None:
        raise error

    with pytest.raises(SystemExit):
        main(lambda: fail(UserError("what was wrong")))
    with pytest.raises(ValueError, match="a fault of ours"):
        main(lambda: fail(ValueError("a fault of ours")))


def test_rounds_add_to_what_was_collected(
    tmp_path: Path, settings: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    status, printed = call("loop", "demo", "--rounds=1", "--rollouts=2", "--gain=-9", *settings, capsys=capsys)
    assert status == 0, printed
    facts = load_policy(tmp_path / "train-round1" / "policy")[1]
    assert facts["episodes"] == 4 * 3 + 4 * 2
    assert facts["buffers"] == [str(tmp_path / "buffer"), str(tmp_path / "buffer-round1")]
    assert f"collect.policy={tmp_path}/train/policy" in printed
    again = call("loop", "demo", "--rounds=1", "--rollouts=2", "--gain=9", *settings, capsys=capsys)[1]
    assert "1 of 1 shards were there already" in again and "is already trained" in again
    following = again.split("next: ")[-1]
    assert following.startswith(" ".join(["orl-ldm evaluate demo", *settings, "--set"]))  # all that was set goes on
    assert f"--set train.out={tmp_path}/train-round1" in following


@pytest.mark.slow
def test_rounds_are_judged_by_one_judge(
    tmp_path: Path, settings: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """And of those that it cannot tell from the best, the latest is accepted."""
    values = {"collect.images": 16, "train.judge.held_out": 0.4, "train.judge.steps": 20, "train.critics.epochs": 2}
    settings = [*settings, *(f"--set={key}={value}" for key, value in values.items())]
    assert call("loop", "demo", "--rounds=1", "--rollouts=2", "--gain=-9", *settings, capsys=capsys)[0] == 0
    pipeline = load_pipeline("demo", [setting.removeprefix("--set=") for setting in settings if setting != "--set"])
    first, other = f"{tmp_path}/train/policy", f"{tmp_path}/train-round1/policy"
    config = replace(pipeline.train, buffers=tuple(loop.buffers_after(pipeline, 1)))
    estimated, accepted = judged_together(config, [first, other, first])
    assert estimated[0] == estimated[2]
    assert estimated[0] != estimated[1]
    assert accepted == 2 or estimated[1] > estimated[0]
    wide = replace(config, judge=replace(config.judge, margin=1e6))
    assert judged_together(wide, [first, other]) == (pytest.approx(estimated[:2]), 1)
    none = replace(config, judge=replace(config.judge, margin=0))
    assert judged_together(none, [first, other])[1] == int(estimated[1] > estimated[0])


def test_a_dial_is_turned_to_every_named_setting_in_a_round() -> None:
    pipeline = load_pipeline("demo", ["train.preference_conditioned=true", "collect.rollouts=6", "collect.out=b"])
    *collections, (_, _, learning) = loop.steps(pipeline, 2, 2)
    chosen = [dict(setting.split("=", 1) for setting in own) for _, _, own in collections]
    assert [one["collect.prefer"] for one in chosen] == list(SETTINGS)
    assert [one["collect.out"] for one in chosen] == [f"b-round2-{name}" for name in SETTINGS]
    assert [one["collect.first_rollout"] for one in chosen] == ["12", "14", "16"]  # 6 broad, then 6 in round 1
    assert [name in learning[1] for name in ("b-round1-paper", "b-round2-perceptual", "b-round3")] == [
        True,
        True,
        False,
    ]


@pytest.mark.slow
def test_checkpoints_are_estimated_and_replayed(
    tmp_path: Path, settings: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    values = {
        "collect.images": 16, "train.judge.held_out": 0.4, "train.judge.steps": 20,
        "train.critics.epochs": 4,
    }  # fmt: skip
    more = [part for key, value in values.items() for part in ("--set", f"{key}={value}")]
    assert call("collect", "demo", *settings, *more, capsys=capsys)[0] == 0
    assert call("train", "demo", *settings, *more, capsys=capsys)[0] == 0
    status, printed = call("ope", "demo", *settings, *more, capsys=capsys)
    assert (status, "train it with --set train.keep_checkpoints=20" in printed) == (2, True)

    more += ["--set", "train.keep_checkpoints=4"]
    assert call("train", "demo", *settings, *more, capsys=capsys)[0] == 0
    assert call("ope", "demo", "--no-replay", *settings, *more, capsys=capsys)[0] == 0
    assert "replay" not in pd.read_csv(tmp_path / "train" / "ope" / "ope.csv").columns
    status, printed = call("ope", "demo", "--images=14", *settings, *more, capsys=capsys)
    assert status == 0, printed
    assert "Spearman's rho of FQE" in printed
    folder = tmp_path / "train" / "ope"
    table, facts = pd.read_csv(folder / "ope.csv"), json.loads((folder / "ope.json").read_text())
    assert len(table) == 4 and {"fqe", "fqe_low", "wis_high", "replay"} <= set(table.columns)
    assert facts["replayed_images"] == 14 > facts["held_out_images"] >= 4
    assert set(facts["spearman"]) == {"fqe", "wis"} and (folder / "ope.png").exists()

    last = tmp_path / "train" / "checkpoints" / "epoch-00004"
    last.rename(tmp_path / "policy")
    status, printed = call("evaluate", "demo", *settings, "--set", f"train.out={tmp_path}", capsys=capsys)
    assert status == 2 and f"the policy in '{tmp_path}/policy' does not say how many episodes" in printed


@pytest.mark.slow
def test_every_algorithm_of_d3rlpy_yields_a_policy_that_steers(
    tmp_path: Path, settings: list[str], ldm: LDM, batch: Batch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("collect", "demo", *settings, capsys=capsys)[0] == 0
    few = ["--set", "train.d3rlpy.epochs=2", "--set", "train.d3rlpy.steps=5"]
    for name in NAMES:
        own = ["--set", f"train.algo=d3rlpy-{name}", "--set", f"train.out={tmp_path / name}"]
        assert call("train", "demo", *settings, *few, *own, capsys=capsys)[0] == 0
        policy, _ = load_policy(tmp_path / name / "policy")
        ids = [ref.image_id for ref in batch.refs]
        rollout = roll_out(ldm, policy, batch.lr, ids, [0, 0, 0], SamplerConfig(nfe_max=5), 7, explore=False)
        assert rollout.images.shape == batch.hr.shape and (rollout.nfe <= 5).all()


def test_a_policy_for_one_preference_says_so(settings: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert call("collect", "demo", *settings, capsys=capsys)[0] == 0
    assert call("train", "demo", *settings, capsys=capsys)[0] == 0
    status, printed = call("evaluate", "demo", "--prefer", "distortion=1,speed=0", *settings, capsys=capsys)
    assert status == 2, printed
    assert "trained for one preference: train one for all with --set train.preference_conditioned=true" in printed


@pytest.mark.slow
def test_a_preference_conditioned_policy_draws_a_frontier(
    tmp_path: Path, settings: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["--set", "train.preference_conditioned=true", "--set", 'evaluate.frontier=["distortion=1", "perception=1"]']
    status, printed = call("demo", "demo", *settings, *few, capsys=capsys)
    assert status == 0, printed
    scored = pd.read_csv(tmp_path / "evaluate" / "per_image.csv")["method"].unique()
    assert {"steered", "steered, prefer distortion=1", "steered, prefer perception=1", "LDM, DDIM 50"} <= set(scored)
    status, printed = call("evaluate", "demo", "--prefer", "speed=1", *settings, *few, capsys=capsys)
    assert status == 0, printed
    facts = json.loads((tmp_path / "evaluate" / "facts.json").read_text())
    assert (facts["setting"], facts["weights"]["nfe"]) == ("speed=1", 1.0)


def test_the_algorithm_is_an_option(tmp_path: Path, settings: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert call("collect", "demo", *settings, capsys=capsys)[0] == 0
    few = ["--set", "train.ppo.epochs=2", "--set", "train.ppo.steps_per_epoch=50"]
    status, printed = call("train", "demo", "--algo", "ppo", *settings, *few, capsys=capsys)
    assert status == 0, printed
    assert load_policy(tmp_path / "train" / "policy")[1]["algo"] == "ppo"
    status, printed = call("train", "demo", "--algo", "dqn", *settings, capsys=capsys)
    assert (status, "train.algo = 'dqn'" in printed) == (2, True)
