"""The command that shows the product on real input."""

from pathlib import Path

import click


@click.command(short_help="See it all on the documentation of Python itself.")
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep the cluster in this folder.  [default: temporary]",
)
@click.argument("questions", nargs=-1)
def demo(data: Path | None, questions: tuple[str, ...]) -> int:
    """Start a cluster, import the documentation of Python's standard library, answer QUESTIONS about it, kill a shard
    server while searches go on, restart the cluster, verify every document, move to another embedding model while clients
    of both search, and roll that back. Ends with the list of its checks. Takes about a minute and leaves nothing behind."""
    from kintsugi.demo import film  # noqa: PLC0415 -- loads scikit-learn, which other commands do without

    return film.run(data, questions) if questions else film.run(data)
