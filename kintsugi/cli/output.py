"""How answers look: plain tables that can be cut with other tools and are never shortened when nobody watches; JSON.

Colours are for terminals only, and for nobody who sets NO_COLOR.
"""

import os
import sys
from typing import Any

import click
import msgspec
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

_PIPE_WIDTH = 240


def console() -> Console:
    """A console on stdout; a pipe or a file gets all the width that a line may need."""
    made = Console(highlight=False)
    return made if made.is_terminal else Console(highlight=False, width=_PIPE_WIDTH)


def table(*columns: str, title: str | None = None) -> Table:
    """A table whose cells wrap rather than lose their end."""
    made = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", show_header=bool(columns))
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


def coloured(text: str, colour: str) -> str:
    """Text of others in a colour, for the console and for cells."""
    return f"[{colour}]{escape(text)}[/]" if text else ""


def plain(text: str) -> str:
    """Text of others for the console and for cells: brackets in it are no markup."""
    return escape(text)


def show_json(value: object) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))


def complain(word: str, message: str) -> None:
    """A line on stderr that begins with a red word."""
    wanted: dict[str, Any] = {} if sys.stderr.isatty() and "NO_COLOR" not in os.environ else {"color": False}
    click.echo(click.style(f"{word}: ", fg="red") + message, err=True, **wanted)
