"""A policy on disk: a folder with `policy.safetensors` (weights) and `policy.json` (everything else)."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from orl_ldm.errors import UserError
from orl_ldm.files import write_bytes, write_text, writing
from orl_ldm.policy.beta import Policy
from orl_ldm.policy.networks import BetaPolicy, PlannedPolicy, SquashedPolicy
from orl_ldm.policy.preference import with_preference
from orl_ldm.policy.spec import PolicySpec
from orl_ldm.reward import SETTINGS, Weights, as_weights, preference
from orl_ldm.shipped import shipped

TrainedPolicy = BetaPolicy | PlannedPolicy | SquashedPolicy

FORMAT = 6

#: `kind` in policy.json -> its class.
KINDS: dict[str, type[TrainedPolicy]] = {"beta": BetaPolicy, "planned": PlannedPolicy, "squashed": SquashedPolicy}


@dataclass(frozen=True)
class OpenedPolicy:
    """A policy that is ready to act.

    `digest` names its weights, its specification and, where it is preference-conditioned, the preference.
    """

    policy: Policy  # of observations (B, F): the preference is applied
    weights: Weights  # of the reward that it acts for
    facts: dict[str, Any]  # how it was trained
    digest: str  # SHA-256, hex


def open_policy(
    folder: str | Path, prefer: str | Mapping[str, float] = "", spec: PolicySpec | None = None
) -> OpenedPolicy:
    """Load a policy, check that it fits `spec`, and apply a preference.

    `folder` is a path or "embedded". `prefer` is a preference in words (orl_ldm.reward.preference), or reward weights,
    which a policy that was trained for one reward ignores; empty: the reward that it was trained for.

    Raises UserError when there is no policy, its files are damaged, it does not fit, the words are unknown, or words
    are given to a policy that was trained for one reward.
    """
    network, facts = load_policy(folder)
    who = f"the policy in {str(folder)!r}"
    if spec is not None:
        spec.require(network.spec, who)
    conditioned = bool(network.spec.preference_names)
    if prefer and isinstance(prefer, str) and not conditioned:
        raise UserError(
            f"{who} was trained for one preference: train one for all with --set train.preference_conditioned=true"
        )
    if isinstance(prefer, str):
        weights = preference(prefer) if prefer else as_weights(facts.get("weights", SETTINGS["paper"]))
    else:
        weights = as_weights(prefer)
    named = policy_digest(network)
    if conditioned:
        named = hashlib.sha256(f"{named} {json.dumps(weights)}".encode()).hexdigest()
    return OpenedPolicy(with_preference(network, weights), weights, facts, named)


def save_policy(policy: TrainedPolicy, folder: str | Path, facts: dict[str, Any]) -> None:
    """Write a policy; `facts` (JSON) say how it was trained.

    The JSON file is removed first and written last: a folder without it holds no policy.
    """
    folder = Path(folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "policy.json").unlink(missing_ok=True)
    write_bytes(folder / "policy.safetensors", save({k: v.contiguous() for k, v in policy.state_dict().items()}))
    content = {"format": FORMAT, "digest": policy_digest(policy), **_described(policy), "facts": facts}
    write_text(folder / "policy.json", json.dumps(content, indent=2) + "\n")


def load_policy(folder: str | Path) -> tuple[TrainedPolicy, dict[str, Any]]:
    """(float32 policy in evaluation mode, its facts), as saved; `open_policy` is for whoever acts with it.

    Raises UserError when there is none, or its files are damaged or do not belong together.
    """
    who, path = (
        f"the policy in {str(folder)!r}",
        shipped("embedded-policy") if str(folder) == "embedded" else Path(folder),
    )
    try:
        content = json.loads((path / "policy.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        if str(folder) == "embedded":
            raise UserError("there is no embedded policy in this installation: name a policy folder") from None
        raise UserError(
            f"there is no policy in {str(folder)!r}: train one first (make train, or orl-ldm train)"
        ) from None
    except ValueError as error:
        raise UserError(f"policy.json in {str(folder)!r} is not JSON: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{who} has another format than {FORMAT}: train it again")
    try:
        spec = PolicySpec(**{key: tuple(value) for key, value in content["spec"].items()})
        policy = KINDS[content["kind"]](spec, [int(size) for size in content["hidden"]]).float()
        policy.load_state_dict(load_file(path / "policy.safetensors"))
        facts = dict(content["facts"])
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError, OSError, SafetensorError) as error:
        raise UserError(f"{who} is damaged: {str(error).splitlines()[0]}; train it again") from error
    if policy_digest(policy) != content.get("digest"):
        raise UserError(f"{who} is damaged: its weights are not those of its digest; train it again")
    if not all(bool(tensor.isfinite().all()) for tensor in policy.parameters()):
        raise UserError(f"{who} has weights that are not finite: train it again")
    return policy.eval(), facts


def policy_digest(policy: TrainedPolicy) -> str:
    """SHA-256 (hex) over a policy's specification and weights."""
    hasher = hashlib.sha256(json.dumps(_described(policy), sort_keys=True).encode())
    for name, tensor in sorted(policy.state_dict().items()):
        hasher.update(name.encode() + tensor.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return hasher.hexdigest()


def _described(policy: TrainedPolicy) -> dict[str, Any]:
    kind = next(name for name, kind in KINDS.items() if isinstance(policy, kind))
    return {"kind": kind, "spec": asdict(policy.spec), "hidden": list(policy.hidden)}
