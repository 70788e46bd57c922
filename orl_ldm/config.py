"""Configuration is data: frozen dataclasses that load from TOML, take overrides, and have a digest."""

import copy
import datetime
import difflib
import hashlib
import json
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError

from orl_ldm.errors import UserError
from orl_ldm.files import reason

T = TypeVar("T")

#: Set as `__pydantic_config__` in every configuration dataclass: a key that does not exist is an error.
STRICT = ConfigDict(extra="forbid")


def expand(value: object) -> object:
    """A path with `~` expanded. A number or a date, as `--set` reads the name 2024-05-01, is a path's name again.

    Raises ValueError for a `~` where no home folder is known. Anything else is returned as it is.
    """
    if isinstance(value, (int, datetime.date)) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        return value
    expanded = os.path.expanduser(value)  # noqa: PTH111 - Path would turn s3://a into s3:/a
    if expanded == value and (value == "~" or value.startswith("~/")):
        raise ValueError("this user has no home folder (HOME is not set): write the path in full")
    return expanded


#: A path or a name that may be one (a hub id, an image source, a URL); a leading `~` is the user's home folder.
PathText = Annotated[str, BeforeValidator(expand)]


def cache_folder() -> Path:
    """Where files live that are fetched or made again when they are missing: $ORL_LDM_CACHE, or ~/.cache/orl-ldm.

    Raises UserError where the variable is not set and the user has no home folder.
    """
    try:
        return Path(os.environ.get("ORL_LDM_CACHE") or "~/.cache/orl-ldm").expanduser()
    except RuntimeError:
        raise UserError(
            "this user has no home folder to keep fetched files in: set the environment variable ORL_LDM_CACHE to a "
            "folder for them"
        ) from None


def read_toml(path: Path) -> dict[str, Any]:
    """The table of a TOML file. Raises UserError when it is missing or malformed."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"there is no pipeline file {str(path)!r}") from None
    except IsADirectoryError:
        raise UserError(f"{str(path)!r} is a folder: name a pipeline file (.toml)") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{str(path)!r} is not valid TOML: {error}") from error
    except OSError as error:
        raise UserError(f"cannot read {str(path)!r}: {reason(error)}") from error


def override(table: dict[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """A copy of `table` with every ``section.key=value`` of `settings` applied; values are TOML, or else plain text."""
    result = copy.deepcopy(table)
    for setting in settings:
        path, equals, text = setting.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise UserError(f"--set {setting!r} is not of the form section.key=value")
        place = result
        for key in keys[:-1]:
            place = place.setdefault(key, {})
            if not isinstance(place, dict):
                raise UserError(f"--set {setting!r}: {key!r} is a value, not a section")
        place[keys[-1]] = _literal(text.strip())
    return result


def _literal(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def build(kind: type[T], table: Mapping[str, Any], where: str) -> T:
    """`table` as a dataclass of type `kind`. Raises UserError naming the first wrong key, its value and the fault."""
    try:
        return TypeAdapter(kind).validate_python(table)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            names = _names(kind, first["loc"])
            known = f"choose one of: {', '.join(names)}" if names else "see the pipeline's documentation"
            raise UserError(
                f"{where}: there is no setting {key!r}{nearest(str(first['loc'][-1]), names)}; {known}"
            ) from None
        raise UserError(
            f"{where}: {key} = {first.get('input')!r}: {first['msg'].removeprefix('Value error, ')}"
        ) from None


def nearest(name: str, names: Sequence[str]) -> str:
    """A question in brackets that suggests the most similar of the names; "" when none is similar."""
    found = difflib.get_close_matches(name, names, 1)
    return f" (did you mean {found[0]!r}?)" if found else ""


def _names(kind: Any, location: tuple[int | str, ...]) -> list[str]:
    """The names that are allowed at the place of a wrong key."""
    for part in location[:-1]:
        kind = get_args(kind)[0] if isinstance(part, int) else get_type_hints(kind).get(part, kind)
    return list(getattr(kind, "__dataclass_fields__", {}))


def digest(*configs: Any) -> str:
    """SHA-256 (hex) of the values of dataclasses, independent of how they were written down."""
    text = json.dumps(
        [asdict(c) if is_dataclass(c) and not isinstance(c, type) else c for c in configs], sort_keys=True
    )
    return hashlib.sha256(text.encode()).hexdigest()
