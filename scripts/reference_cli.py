"""The reference of the command line: what --help says of each command, in the order of the commands."""

from collections.abc import Iterator

import click

from kintsugi.cli.main import cli

WIDTH = 110

INTRODUCTION = """\
# Command line

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted. What the words of `kintsugi status` mean stands in
[operations](../operations.md#the-words-of-kintsugi-status), how to import your own data in the
[README](../../README.md#your-own-vectors).
"""


def cli_page() -> str:
    return "\n".join([INTRODUCTION, *_commands(cli, "kintsugi", None)])


def _commands(command: click.Command, path: str, parent: click.Context | None) -> Iterator[str]:
    context = click.Context(command, info_name=path.rpartition(" ")[2], parent=parent, **_settings(parent))
    yield f"## {path}\n\n```\n{command.get_help(context).rstrip()}\n```\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            if found is not None and not found.hidden:
                yield from _commands(found, f"{path} {name}", context)


def _settings(parent: click.Context | None) -> dict[str, object]:
    """Those of the program; the width does not depend on anybody's terminal."""
    return {"terminal_width": WIDTH, "max_content_width": WIDTH, **({} if parent else cli.context_settings)} | {
        "terminal_width": WIDTH
    }
