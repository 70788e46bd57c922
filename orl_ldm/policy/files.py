"""A policy on disk: a folder with `policy.safetensors` (weights) and `policy.json` (everything else)."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from orl_ldm.errors import UserError
from orl_ldm.policy.beta import BetaPolicy, Policy
from orl_ldm.policy.planned import PlannedPolicy
from orl_ldm.policy.preferring import under
from orl_ldm.policy.spec import PolicySpec
from orl_ldm.policy.squashed import SquashedPolicy
from orl_ldm.reward import Weights

TrainedPolicy = BetaPolicy | PlannedPolicy | SquashedPolicy

FORMAT = 5

#: `kind` in policy.json -> its class.
KINDS: dict[str, type[TrainedPolicy]] = {"beta": BetaPolicy, "planned": PlannedPolicy, "squashed": SquashedPolicy}


def save_policy(policy: TrainedPolicy, folder: str | Path, facts: dict[str, Any]) -> None:
    """Write a policy; `facts` (JSON) say how it was trained.

    The JSON is written last and marks it complete; that of a policy which was there before goes first.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "policy.json").unlink(missing_ok=True)
    weights = folder / "policy.safetensors.tmp"
    save_file({k: v.contiguous() for k, v in policy.state_dict().items()}, weights)
    weights.replace(folder / "policy.safetensors")
    kind = next(name for name, kind in KINDS.items() if isinstance(policy, kind))
    content = {
        "format": FORMAT,
        "kind": kind,
        "spec": asdict(policy.spec),
        "hidden": list(policy.hidden),
        "facts": facts,
    }
    staged = folder / "policy.json.tmp"
    staged.write_text(json.dumps(content, indent=2) + "\n")
    staged.replace(folder / "policy.json")


def load_policy(folder: str | Path) -> tuple[TrainedPolicy, dict[str, Any]]:
    """(policy in evaluation mode, its facts). Raises UserError when there is none or its files do not fit together."""
    folder = Path(folder)
    try:
        content = json.loads((folder / "policy.json").read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"there is no policy in {str(folder)!r}: train one first (make train, or orl-ldm train)"
        ) from None
    except ValueError as error:
        raise UserError(f"policy.json in {str(folder)!r} is not JSON: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"the policy in {str(folder)!r} has another format than {FORMAT}: train it again")
    try:
        spec = PolicySpec(**{key: tuple(value) for key, value in content["spec"].items()})
        policy = KINDS[content["kind"]](spec, [int(size) for size in content["hidden"]])
        policy.load_state_dict(load_file(folder / "policy.safetensors"))
        facts = dict(content["facts"])
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError, OSError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"the policy in {str(folder)!r} is damaged: {reason}; train it again") from error
    return policy.eval(), facts


@dataclass(frozen=True)
class OpenedPolicy:
    """A policy that is ready to act, and what is known of it."""

    policy: Policy
    weights: Weights
    facts: dict[str, Any]
    digest: str


def open_policy(folder: str | Path, prefer: str = "", spec: PolicySpec | None = None) -> OpenedPolicy:
    """Load a policy, check it against a specification, and give it a preference in words."""
    network, facts = load_policy(folder)
    if spec is not None:
        spec.require(network.spec, f"the policy in {str(folder)!r}")
    policy, weights = under(network, facts, prefer, f"the policy in {str(folder)!r}")
    parts = (Path(folder, name).read_bytes() for name in ("policy.json", "policy.safetensors"))
    return OpenedPolicy(policy, weights, facts, hashlib.sha256(b"".join(parts)).hexdigest())
