"""How tables look: plain lines that can be cut with other tools, and never shortened when nobody watches."""

from rich import box
from rich.console import Console
from rich.table import Table

_PIPE_WIDTH = 240


def console() -> Console:
    """A console on stdout; a pipe or a file gets all the width that a line may need."""
    made = Console(highlight=False)
    return made if made.is_terminal else Console(highlight=False, width=_PIPE_WIDTH)


def new(*columns: str, title: str | None = None) -> Table:
    """A table whose cells wrap rather than lose their end."""
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", show_header=bool(columns))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
