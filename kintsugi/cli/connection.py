"""The options that commands share: which coordinators to ask, and for how long."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from kintsugi.sdk.blocking import Client

DEFAULT_ADDRESS = "127.0.0.1:7700"
DEFAULT_TIMEOUT_S = 10.0

F = TypeVar("F", bound=Callable[..., Any])


def client_options(command: F) -> F:
    """Adds --address and --timeout, which connect() takes."""
    command = click.option(
        "--timeout",
        "timeout_s",
        default=DEFAULT_TIMEOUT_S,
        show_default=True,
        metavar="SECONDS",
        type=click.FloatRange(min=0, min_open=True),
        help="Time for each call, retries included.",
    )(command)
    return click.option(
        "--address",
        "addresses",
        default=(DEFAULT_ADDRESS,),
        show_default=True,
        multiple=True,
        envvar="KINTSUGI_ADDRESS",
        metavar="HOST:PORT",
        help="A coordinator; repeat it to name several. Also from KINTSUGI_ADDRESS.",
    )(command)


def connect(addresses: tuple[str, ...], timeout_s: float) -> Client:
    return Client(list(addresses), timeout_s=timeout_s)


def parse_id(text: str) -> int | str:
    """A document id as people type it: digits are an integer id; text in double quotes is always a string id."""
    if len(text) > 1 and text.startswith('"') and text.endswith('"'):
        return text[1:-1]
    return int(text) if text.isascii() and text.isdigit() else text
