"""Policy files: what is saved comes back, and what is damaged or does not fit is refused in one sentence."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from orl_ldm.errors import UserError
from orl_ldm.policy import (
    BetaPolicy,
    PlannedPolicy,
    PolicySpec,
    SquashedPolicy,
    TrainedPolicy,
    files,
    load_policy,
    open_policy,
    save_policy,
)
from orl_ldm.policy.beta import mean_action
from orl_ldm.reward import SETTINGS

SPEC = PolicySpec(("position/decision", "b", "c"), ("t_ratio", "detail"), (0.0, 0.5), (1.0, 1.5))
PREFERRING = replace(SPEC, preference_names=("psnr", "ssim", "lpips", "nfe"))


@pytest.mark.parametrize("kind", [BetaPolicy, PlannedPolicy, SquashedPolicy])
def test_a_saved_policy_comes_back_whatever_the_default_dtype(tmp_path: Path, kind: type[TrainedPolicy]) -> None:
    spec = SPEC if kind is SquashedPolicy else replace(SPEC, fixed_first_actions=(1.0, None), fixed_actions=(None, 1.2))
    policy, observations = kind(spec, (16, 8)), torch.randn(7, 3)
    (policy.actor if isinstance(policy, PlannedPolicy) else policy).normalise.fit(torch.randn(50, 3) * 5 + 1)
    save_policy(policy, tmp_path, {"algo": "critics"})
    torch.set_default_dtype(torch.bfloat16)
    try:
        back, facts = load_policy(tmp_path)
    finally:
        torch.set_default_dtype(torch.float32)
    assert isinstance(back, kind) and (back.spec, back.hidden, facts) == (spec, (16, 8), {"algo": "critics"})
    assert torch.equal(mean_action(back, observations), mean_action(policy, observations))


def test_opening_applies_the_preference_and_names_the_policy(tmp_path: Path) -> None:
    policy = BetaPolicy(PREFERRING, (8,))
    nn.init.normal_(policy.head.weight)
    save_policy(policy, tmp_path, {"weights": SETTINGS["balanced"]})
    own, words, weights = (open_policy(tmp_path, prefer, SPEC) for prefer in ("", "lpips=1", {"lpips": 1.0}))
    assert own.weights == SETTINGS["balanced"]
    assert words.weights == weights.weights == {"psnr": 0, "ssim": 0, "lpips": 1, "nfe": 0}
    observations = torch.randn(3, 3)
    assert torch.equal(mean_action(words.policy, observations), mean_action(weights.policy, observations))
    assert not torch.equal(mean_action(words.policy, observations), mean_action(own.policy, observations))
    assert words.digest == weights.digest != own.digest


def test_a_policy_for_one_preference_takes_no_other(tmp_path: Path) -> None:
    save_policy(BetaPolicy(SPEC, (8,)), tmp_path, {"weights": SETTINGS["perceptual"]})
    plain, by_weights = open_policy(tmp_path), open_policy(tmp_path, SETTINGS["paper"])
    assert (plain.weights, by_weights.weights) == (SETTINGS["perceptual"], SETTINGS["paper"])
    assert plain.digest == by_weights.digest
    with pytest.raises(UserError, match=r"one for all with --set train\.preference_conditioned=true"):
        open_policy(tmp_path, "lpips=1")


def test_a_policy_for_other_spaces_is_refused(tmp_path: Path) -> None:
    save_policy(BetaPolicy(SPEC, (8,)), tmp_path, {})
    for change, sentence in (
        ({"feature_names": ("position/decision", "b", "z")}, "unknown here: c; missing: z"),
        ({"feature_names": ("b", "position/decision", "c")}, "in another order"),
        ({"action_names": ("t_ratio", "eta")}, "is for another action space: unknown here: detail; missing: eta"),
        ({"action_low": (0.0, 0.0)}, "its bounds are"),
    ):
        with pytest.raises(UserError, match=f"the policy in '.*' .*{sentence}"):
            open_policy(tmp_path, spec=replace(SPEC, **change))  # type: ignore[arg-type]


def rewritten(change: dict[str, Any]) -> Callable[[Path], object]:
    """Damage to policy.json: entries replaced, or removed with None."""

    def damage(folder: Path) -> None:
        path = folder / "policy.json"
        content = json.loads(path.read_text()) | change
        path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))

    return damage


def weight_changed(value: float) -> Callable[[Path], object]:
    """Damage to policy.safetensors: one weight."""

    def damage(folder: Path) -> None:
        tensors = load_file(folder / "policy.safetensors")
        tensors["head.bias"][0] = value
        save_file(tensors, folder / "policy.safetensors")

    return damage


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda folder: (folder / "policy.json").unlink(), "there is no policy in"),
        (lambda folder: (folder / "policy.json").write_text("{"), "policy.json in .* is not JSON"),
        (lambda folder: (folder / "policy.safetensors").unlink(), "is damaged: .*No such file"),
        (lambda folder: (folder / "policy.safetensors").write_bytes(b"short"), "is damaged: .*header"),
        (rewritten({"format": 99}), "has another format than"),
        (rewritten({"hidden": [17]}), r"is damaged: Error\(s\) in loading state_dict"),
        (rewritten({"facts": None}), "is damaged: 'facts'"),
        (rewritten({"spec": [1]}), "is damaged: .*no attribute 'items'"),
        (rewritten({"digest": "0" * 64}), "is damaged: its weights are not those of its digest"),
        (weight_changed(0.5), "is damaged: its weights are not those of its digest"),
    ],
)
def test_a_damaged_policy_is_refused_with_what_is_wrong(
    tmp_path: Path, damage: Callable[[Path], object], sentence: str
) -> None:
    save_policy(BetaPolicy(SPEC, (16,)), tmp_path, {})
    damage(tmp_path)
    with pytest.raises(UserError, match=sentence):
        open_policy(tmp_path)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    policy = BetaPolicy(SPEC, (16,))
    policy.head.bias.data[0] = torch.nan
    save_policy(policy, tmp_path, {})
    with pytest.raises(UserError, match="has weights that are not finite"):
        open_policy(tmp_path)


def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    save_policy(BetaPolicy(SPEC, (16,)), tmp_path, {})
    with pytest.raises(UserError, match="there is no policy in"):
        open_policy(tmp_path / "policy.json")


def test_embedded_is_the_policy_that_ships(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "shipped", lambda name: tmp_path / name)
    with pytest.raises(UserError, match="there is no embedded policy in this installation"):
        open_policy("embedded")
    save_policy(BetaPolicy(SPEC, (16,)), tmp_path / "embedded-policy", {"whose": "the project's"})
    assert open_policy("embedded").facts == {"whose": "the project's"}


def test_half_a_policy_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted while one policy replaces another one: the weights of one never go with the facts of the other."""
    save_policy(BetaPolicy(SPEC, (16,)), tmp_path, {"whose": "the first's"})
    monkeypatch.setattr(files, "write_text", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_policy(BetaPolicy(SPEC, (16,)), tmp_path, {"whose": "the second's"})
    with pytest.raises(UserError, match="there is no policy in"):
        open_policy(tmp_path)
