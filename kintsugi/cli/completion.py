"""The command that prints what a shell needs to complete the others."""

import click
from click.shell_completion import get_completion_class

from kintsugi.errors import Internal

COMPLETE_VARIABLE = "_KINTSUGI_COMPLETE"


@click.command(short_help="Print the completion script of a shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what makes SHELL complete commands, options and names of collections.

    \b
    bash   kintsugi completion bash > ~/.local/share/bash-completion/completions/kintsugi
    zsh    kintsugi completion zsh > "${fpath[1]}/_kintsugi"
    fish   kintsugi completion fish > ~/.config/fish/completions/kintsugi.fish
    """  # noqa: D301 -- click's mark for lines that stay as they are
    kind = get_completion_class(shell)
    if kind is None:
        raise Internal(f"click knows no shell {shell}")
    root = context.find_root()
    made = kind(root.command, {}, "kintsugi", COMPLETE_VARIABLE)
    # Not source(): it looks for a bash on this machine, and the script may be for another one.
    click.echo(made.source_template % made.source_vars())
