"""The options and arguments that commands share: which coordinators to ask, for how long, about what."""

from collections.abc import Callable
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from kintsugi.ann.spec import EncodingKind, parse_name
from kintsugi.errors import KintsugiError
from kintsugi.sdk.blocking import Client

DEFAULT_ADDRESS = "127.0.0.1:7700"
DEFAULT_TIMEOUT_S = 10.0
# Whoever presses TAB does not wait for a cluster that is away.
_COMPLETION_TIMEOUT_S = 0.5

F = TypeVar("F", bound=Callable[..., Any])


class Address(click.ParamType[str]):
    """HOST:PORT; in a variable, several between commas."""

    name = "HOST:PORT"
    envvar_list_splitter = ","

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value).strip()
        host, _, port = text.rpartition(":")
        if not host or not port.isdecimal():
            self.fail(f"{text!r}, must be HOST:PORT such as {DEFAULT_ADDRESS}", param, ctx)
        return text


class CollectionName(click.ParamType[str]):
    """The name of a collection, which a shell can complete."""

    name = "COLLECTION"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002 -- click's signature
        addresses = ctx.params.get("addresses") or (DEFAULT_ADDRESS,)
        try:
            with connect(addresses, _COMPLETION_TIMEOUT_S) as client:
                names = [found.name for found in client.collections()]
        except KintsugiError:
            return []
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


COLLECTION = CollectionName()


class Encoding(click.ParamType[str]):
    """The written form of an encoding."""

    name = "ENCODING"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return parse_name(str(value)).name
        except ValueError as error:
            self.fail(str(error), param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002 -- click's signature
        return [CompletionItem(kind) for kind in EncodingKind if kind.startswith(incomplete)]


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
        type=Address(),
        envvar="KINTSUGI_ADDRESS",
        metavar="HOST:PORT",
        help="A coordinator; repeat it to name several. Also from KINTSUGI_ADDRESS, between commas.",
    )(command)


def json_option(what: str) -> Callable[[F], F]:
    return click.option("--json", "as_json", is_flag=True, help=f"Show {what} as JSON.")


def connect(addresses: tuple[str, ...], timeout_s: float) -> Client:
    return Client(list(addresses), timeout_s=timeout_s)


def parse_id(text: str) -> int | str:
    """A document id as people type it: digits are an integer id; text in double quotes is always a string id."""
    if len(text) > 1 and text.startswith('"') and text.endswith('"'):
        return text[1:-1]
    return int(text) if text.isascii() and text.isdigit() else text
