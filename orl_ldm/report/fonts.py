"""Fonts for names in any script: an installed font that has the characters, else the characters' numbers."""

import logging
from functools import cache

from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

FONT = "DejaVu Sans"  # comes with matplotlib

log = logging.getLogger(__name__)


def use_fonts(figure: Figure) -> None:
    """Let every text of a figure fall back on fonts that have its characters; write `\\u673a` where none has."""
    for artist in figure.findobj(Text):
        assert isinstance(artist, Text)
        written = artist.get_text()
        fonts = {character: font_with(character) for character in set(written) if not character.isspace()}
        if set(fonts.values()) <= {FONT}:
            continue
        artist.set_fontfamily(list(dict.fromkeys([FONT, *(font for font in fonts.values() if font)])))
        artist.set_text("".join(c if c.isspace() or fonts[c] else _number(c) for c in written))
        if None in fonts.values():
            _warn()


@cache
def font_with(character: str) -> str | None:
    """The name of an installed font that has a character, FONT before others; None when there is none."""
    regular = [
        entry
        for entry in fontManager.ttflist
        if entry.style == "normal" and entry.weight in (400, "normal") and not entry.name.startswith("Last Resort")
    ]  # fonts of last resort draw a box for any character
    for entry in sorted(regular, key=lambda entry: (entry.name != FONT, "Sans" not in entry.name, entry.name)):
        try:
            if FT2Font(entry.fname).get_char_index(ord(character)):
                return entry.name
        except (OSError, RuntimeError):  # a font that was removed, or that FreeType cannot read
            continue
    return None


def _number(character: str) -> str:
    return character.encode("ascii", "backslashreplace").decode("ascii")


@cache
def _warn() -> None:
    log.warning(
        "no installed font has all characters of the names in the figures; they are written as numbers such as "
        "\\u673a: install a font that has them, such as Noto Sans CJK"
    )
