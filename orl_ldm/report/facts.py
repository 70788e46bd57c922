"""facts.json as lines that a person reads: what was measured, on what, and how to do it again."""

from typing import Any

#: Entries of facts.json, in the order in which they are shown, under the names that a reader knows.
SHOWN: tuple[tuple[str, str], ...] = (
    ("pipeline", "pipeline"),
    ("setting", "reward setting"),
    ("weights", "reward weights"),
    ("nfe_max", "NFE budget (NFE_max)"),
    ("images", "test images"),
    ("size", "HR size (px)"),
    ("seed", "seed"),
    ("contract", "metric contract"),
    ("ldm.id", "LDM"),
    ("ldm.digest", "LDM digest"),
    ("policy.algo", "algorithm"),
    ("policy.steps", "gradient steps"),
    ("policy.seed", "training seed"),
    ("policy.buffers", "buffers"),
    ("policy.episodes", "episodes in the buffers"),
    ("policy.behavior_reward", "reward logged in the buffers"),
    ("policy.estimated_reward", "reward estimated offline"),
    ("fixed_schedule", "best fixed control, decision by decision"),
    ("search_episodes", "episodes of its search"),
)


def listed(facts: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """(name, lines) of the entries of SHOWN that the facts have; an object gives a line per entry."""
    found = ((name, _find(facts, path.split("."))) for path, name in SHOWN)
    return [(name, _lines(value)) for name, value in found if value not in (None, "", [], {})]


def _find(value: Any, path: list[str]) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _lines(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [f"{key}: {_text(entry)}" for key, entry in value.items()]
    return [_text(entry) for entry in value] if isinstance(value, list) else [_text(value)]


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(entry)}" for key, entry in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
