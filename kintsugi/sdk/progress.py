"""The progress bar of long calls. Draws on stderr, and by default only when that is a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def bar(title: str, total: int, wanted: bool | None) -> Iterator[Callable[[int], None]]:
    """Yields what is to be called with the number of items done. `wanted` None asks whether stderr is a terminal."""
    if not (sys.stderr.isatty() if wanted is None else wanted):
        yield lambda _done: None
        return
    # Imported here because most users never draw one.
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=total)
        yield lambda done: progress.advance(task, done)
