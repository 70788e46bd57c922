"""Progress bars: what runs, how fast, and how long it will take."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text


class RateColumn(ProgressColumn):
    """Items per second."""

    def render(self, task: Task) -> Text:
        """The speed, once there is one."""
        return Text(f"{task.speed:.1f}/s" if task.speed else "-/s", style="progress.data.speed")


#: Names of methods and folders come from outside: they are not markup.
DESCRIPTION = TextColumn("{task.description}", markup=False)


def _bar(console: Console) -> Progress:
    columns = (DESCRIPTION, BarColumn(), MofNCompleteColumn(), RateColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console)


@contextmanager
def episodes_bar(what: str, console: Console) -> Iterator[Callable[[int, int], None]]:
    """A bar; yields what sets it to (episodes done, episodes in all)."""
    with _bar(console) as progress:
        task = progress.add_task(what, total=None)

        def advance(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        yield advance


@contextmanager
def bytes_bar(what: str, console: Console) -> Iterator[Callable[[int, int], None]]:
    """A bar; yields what sets it to (bytes done, bytes in all). It is not shown when there is nothing to do."""
    columns = (DESCRIPTION, BarColumn(), DownloadColumn(), TransferSpeedColumn())
    progress = Progress(*columns, TimeRemainingColumn(), console=console)
    task = progress.add_task(what)

    def advance(done: int, total: int) -> None:
        if total:
            progress.start()
        progress.update(task, completed=done, total=total)

    try:
        yield advance
    finally:
        if progress.live.is_started:
            progress.stop()


@contextmanager
def methods_bar(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each method; yields what sets one to (method, images done, images in all)."""
    with _bar(console) as progress:
        tasks = {}

        def advance(method: str, done: int, total: int) -> None:
            if method not in tasks:
                tasks[method] = progress.add_task(method, total=total)
            progress.update(tasks[method], completed=done, total=total)

        yield advance
