"""Reading an evaluation folder. Everything is checked here; the rest of the report relies on it."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from orl_ldm.actions import ACTIONS
from orl_ldm.errors import UserError
from orl_ldm.report.statistics import columns
from orl_ldm.reward import SETTINGS, TERMS

ROLES = ("bicubic", "ceiling", "alone", "fixed", "steered")


@dataclass(frozen=True)
class Example:
    """One crop of a side-by-side row; metrics that do not apply (such as those of HR itself) are absent."""

    label: str
    file: Path
    metrics: dict[str, float]


@dataclass(frozen=True)
class Evaluation:
    """A checked evaluation.

    `per_image` has a row per method, input and image; `input` is the degradation that made the LR image, "" where the
    evaluation does not name it. `roles` maps a role to a method. `actions` has a row per decision of the steered
    policy, or none. `examples` is (scene, image, crops) per scene.
    """

    folder: Path
    per_image: pd.DataFrame
    facts: dict[str, Any]
    roles: dict[str, str]
    actions: pd.DataFrame
    examples: tuple[tuple[str, str, tuple[Example, ...]], ...]

    @property
    def setting(self) -> str:
        """Name of the reward setting behind the column `reward`."""
        return str(self.facts.get("setting") or "unnamed")

    @property
    def repeated_reward(self) -> str:
        """The `reward_<setting>` column that equals `reward`, or "" if the weights are those of no named setting."""
        same = self.setting in SETTINGS and SETTINGS[self.setting] == self.facts.get("weights")
        return f"reward_{self.setting}" if same else ""

    @property
    def inputs(self) -> tuple[str, ...]:
        """The kinds of input, in order of appearance."""
        return tuple(self.per_image["input"].unique())

    def of_input(self, kind: str) -> "Evaluation":
        """The part of one kind of input, with the roles whose methods it has."""
        images = self.per_image[self.per_image["input"] == kind]
        methods = set(images["method"])
        return replace(
            self,
            per_image=images,
            actions=self.actions[self.actions["input"] == kind] if "input" in self.actions else self.actions,
            roles={role: method for role, method in self.roles.items() if method in methods},
        )

    @property
    def parts(self) -> list[tuple[str, "Evaluation"]]:
        """(heading, part) of each kind of input; the heading of the only one is ""."""
        if len(self.inputs) == 1:
            return [("", self)]
        return [(f"Input: {kind or 'not named'}", self.of_input(kind)) for kind in self.inputs]


def read_evaluation(folder: Path) -> Evaluation:
    """Read and check an evaluation folder. Raises UserError with one sentence for whatever is missing or malformed."""
    table = folder / "per_image.csv"
    if not table.is_file():
        raise UserError(f"there is no evaluation in {str(folder)!r} (no per_image.csv); run make evaluate first")
    per_image = _read_csv(table, ("method", "image", "scene"), tuple(term.name for term in columns()))
    if "input" not in per_image:
        per_image = per_image.assign(input="")
    if per_image.empty:
        raise UserError(f"{table} has no rows; run make evaluate again")
    twice = per_image[per_image.duplicated(["method", "input", "image"])]
    if not twice.empty:
        method, image = twice.iloc[0][["method", "image"]]
        raise UserError(f"{table} has image {image!r} of method {method!r} twice; run make evaluate again")
    facts = _read_json(folder / "facts.json", dict)
    actions = folder / "actions.csv"
    return Evaluation(
        folder=folder,
        per_image=per_image,
        facts=facts,
        roles=_roles(folder / "facts.json", facts, set(per_image["method"])),
        actions=_read_csv(actions, ("image", "scene"), ("decision", "t", *ACTIONS))
        if actions.is_file()
        else pd.DataFrame(),
        examples=_examples(folder / "examples"),
    )


def read_training(folder: Path) -> pd.DataFrame:
    """The learner's metrics.csv, one row per epoch; gaps are NaN. Raises UserError when it is not there."""
    path = folder / "metrics.csv"
    if not path.is_file():
        raise UserError(f"there is no training in {str(folder)!r} (no metrics.csv); run make train first")
    text = _parse_csv(path)
    columns = {name: pd.to_numeric(text[name], errors="coerce").astype(np.float64) for name in text.columns}
    return pd.DataFrame(columns).replace([np.inf, -np.inf], np.nan)


def _parse_csv(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False)  # a scene may well be called "NA"
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise UserError(f"could not read {path}: {str(error).splitlines()[0]}") from error


def _read_csv(path: Path, names: tuple[str, ...], numbers: tuple[str, ...]) -> pd.DataFrame:
    """A CSV file with columns of text and of finite numbers, and, where it has them, `input` and other rewards."""
    frame = _parse_csv(path)
    missing = [column for column in names + numbers if column not in frame.columns]
    if missing:
        raise UserError(f"{path} has no column {missing[0]!r}; it needs {', '.join(names + numbers)}")
    numbers += tuple(column for column in frame.columns if column.startswith("reward_"))
    for column in numbers:
        values = pd.to_numeric(frame[column], errors="coerce").astype(np.float64)
        wrong = ~np.isfinite(values.to_numpy())
        if wrong.any():
            row = int(wrong.argmax())
            raise UserError(f"{path}, line {row + 2}: {column} is {frame[column].iloc[row]!r}, not a finite number")
        frame[column] = values
    return frame[[*names, *(name for name in ("input",) if name in frame.columns), *numbers]]


def _read_json(path: Path, kind: type) -> Any:
    if not path.is_file():
        raise UserError(f"{path} is missing; run make evaluate again")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"could not read {path}: {error}") from error
    if not isinstance(content, kind):
        raise UserError(f"{path} should hold a JSON {'object' if kind is dict else 'list'}; run make evaluate again")
    return content


def _roles(path: Path, facts: dict[str, Any], methods: set[str]) -> dict[str, str]:
    """Role -> method for the known roles that are filled."""
    roles = facts.get("roles", {})
    if not isinstance(roles, dict):
        raise UserError(f"{path}: roles should be an object of role and method; run make evaluate again")
    filled = {role: roles[role] for role in ROLES if roles.get(role)}
    for role, method in filled.items():
        if role != "steered" and method == filled.get("steered"):
            raise UserError(f"{path} gives the roles 'steered' and {role!r} to the same method, {method!r}")
        if not isinstance(method, str) or method not in methods:
            raise UserError(f"{path} gives the role {role!r} to {method!r}, a method that per_image.csv does not have")
    return filled


def _examples(folder: Path) -> tuple[tuple[str, str, tuple[Example, ...]], ...]:
    """Rows of crops. Only PNG files inside the folder are taken: their bytes end up in the page."""
    index = folder / "index.json"
    if not index.is_file():
        return ()
    rows = []
    for entry in _read_json(index, list):
        try:
            crops = tuple(_example(folder, column) for column in entry["columns"])
            rows.append((str(entry["scene"]), str(entry.get("image", "")), crops))
        except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
            raise UserError(
                f"{index} is malformed ({type(error).__name__}: {error}); run make evaluate again"
            ) from error
    return tuple(rows)


def _example(folder: Path, column: dict[str, Any]) -> Example:
    path = (folder / column["file"]).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise UserError(f"{folder / 'index.json'} names {column['file']!r}, a file outside its folder")
    try:
        with Image.open(path, formats=["PNG"]) as image:
            image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(
            f"the example {column['file']!r} in {folder} is not a PNG file; run make evaluate again"
        ) from error
    metrics = {name: float(column[name]) for name in TERMS if column.get(name) is not None}
    return Example(str(column["label"]), path, metrics)
