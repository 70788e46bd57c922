"""Sentences on the user's terminal. Names and paths come from outside: they are printed as they are, not as markup."""

from rich.console import Console
from rich.text import Text


def say(console: Console, sentence: str, style: str = "") -> None:
    """Print a sentence on one line: no markup, no highlighting, and no characters that could steer the terminal."""
    console.print(Text(printable(sentence), style=style), soft_wrap=True)


def printable(text: str) -> str:
    """The text without characters that could steer a terminal."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
