"""The progress bars of long calls, with their rate. Draws on stderr, and by default only when that is a terminal."""

import sys
import time
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

    columns = (
        *(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()),
        *(TextColumn("{task.fields[rate]}"), TimeRemainingColumn()),
    )
    rate = Rate()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=total, rate="")

        def advance(done: int) -> None:
            progress.update(task, advance=done, rate=rate.after(progress.tasks[0].completed + done))

        yield advance


@contextmanager
def transfer(title: str, length: int, wanted: bool | None) -> Iterator[Callable[[int, int], None]]:
    """Yields what is to be called with an offset, of `length`, and the number of documents up to there: for sources
    whose documents are not counted beforehand."""
    if not (sys.stderr.isatty() if wanted is None else wanted):
        yield lambda _offset, _documents: None
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (
        *(TextColumn("{task.description}"), BarColumn(), TaskProgressColumn()),
        *(TextColumn("{task.fields[documents]:,} documents {task.fields[rate]}"), TimeRemainingColumn()),
    )
    rate = Rate()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=length, documents=0, rate="")
        yield lambda offset, documents: progress.update(
            task, completed=offset, documents=documents, rate=rate.after(documents)
        )


class Rate:
    """Documents per second since the first ones were counted: what an earlier run did does not count."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began: tuple[float, float] | None = None

    def after(self, documents: float) -> str:
        now = self._clock()
        if self._began is None:
            self._began = (now, documents)
        since, before = self._began
        return f"{(documents - before) / (now - since):,.0f}/s" if now > since and documents > before else ""
