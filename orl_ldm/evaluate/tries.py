"""What a search has found out so far, in a file: so an interrupted one goes on where it was."""

from collections.abc import Callable
from pathlib import Path

from orl_ldm.errors import UserError
from orl_ldm.files import write_text, writing


class Tries:
    """The rewards of a search in the order of its tries, a line each; those that are there are not played again.

    Raises UserError for a file that holds anything else.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
            whole = [line for line in lines if line.endswith("\n")]  # a kill may have cut the last one short
            self._known = iter([float(line) for line in whole])
        except ValueError as error:
            raise UserError(f"{str(path)!r} is damaged ({error}): delete it, and its search begins anew") from None
        write_text(path, "".join(whole))

    def __call__(self, play: Callable[[], float]) -> float:
        """The reward of the next try."""
        if (known := next(self._known, None)) is not None:
            return known
        reward = play()
        with writing(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(f"{reward!r}\n")
        return reward
