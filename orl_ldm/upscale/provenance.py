"""What a result depends on: compared when a run goes on, and written into the output's tags. Digests, never paths."""

from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from orl_ldm.steer.door import SteeredSR
from orl_ldm.upscale.options import Options
from orl_ldm.upscale.scene import Scene
from orl_ldm.upscale.source import Source, digest_of


def identity_of(
    source: Source, steered: SteeredSR | None, options: Options, uncertainty: Path | None
) -> dict[str, Any]:
    """Everything that the result depends on, as JSON has it."""
    networks = {}
    if steered is not None:
        networks = {
            "policy": steered.policy_digest,
            "preference": dict(steered.weights),
            "LDM": steered.ldm.digest,
            "sampler": asdict(steered.sampler),
            "device": steered.ldm.device.type,
        }
    chosen = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(options).items()}
    made = {"uncertainty": uncertainty.name if uncertainty else None, "version": _version()}
    return {"input": digest_of(source), **networks, **chosen, **made}


def provenance(scene: Scene, steered: SteeredSR | None, options: Options, identity: dict[str, Any]) -> dict[str, str]:
    """Tags of the output."""
    tags = {
        "ORL_LDM_VERSION": identity["version"],
        "ORL_LDM_METHOD": options.method + (" faithful" if options.faithful else ""),
        "ORL_LDM_INPUT": identity["input"],
        "ORL_LDM_RANGE": f"{scene.survey.low!r},{scene.survey.high!r}",
        "ORL_LDM_TILE": str(scene.tile),
    }
    if steered is not None:
        tags |= {
            "ORL_LDM_POLICY": identity["policy"],
            "ORL_LDM_LDM": identity["LDM"],
            "ORL_LDM_SEED": str(options.seed),
            "ORL_LDM_PREFERENCE": ",".join(f"{k}={v:g}" for k, v in identity["preference"].items()),
        }
    return tags


def _version() -> str:
    try:
        return version("orl-ldm")
    except PackageNotFoundError:  # run from a clone that is not installed
        return "unknown"
