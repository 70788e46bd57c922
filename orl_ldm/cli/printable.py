"""What others wrote, on the user's terminal."""


def printable(text: str) -> str:
    """The text without characters that could steer a terminal: names in buffers and of files are anybody's."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
