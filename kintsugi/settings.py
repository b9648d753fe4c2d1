"""The settings of a process: one frozen dataclass, read from flags, then KINTSUGI_* variables, then defaults.

Every field carries its help text and bounds, so that --help, the checks and the documentation cannot disagree.
A wrong value is refused with the flag, the value and the bound. Knows nothing about what a setting does.
"""

import argparse
import dataclasses
import os
import sys
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

ENVIRONMENT_PREFIX = "KINTSUGI_"
EXIT_USAGE = 2

T = TypeVar("T")

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}
_BOUNDS = "bounds"


class SettingError(ValueError):
    """A setting is missing, malformed or out of bounds."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a value must satisfy beyond its type."""

    help: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()

    def text(self) -> str:
        """The bound for people; empty when any value of the type will do."""
        if self.choices:
            return f"must be one of {', '.join(self.choices)}"
        range_text = self.range_text()
        return f"must be {range_text}" if range_text else ""

    def range_text(self) -> str:
        """The range in words, whole numbers written out; empty when there is none."""
        least, most = (
            None if end is None else str(int(end) if end == int(end) else end) for end in (self.minimum, self.maximum)
        )
        if least is not None and most is not None:
            return f"{least} to {most}"
        return f"at least {least}" if least is not None else f"at most {most}" if most is not None else ""

    def allow(self, value: object) -> bool:
        if self.choices and value not in self.choices:
            return False
        if not isinstance(value, int | float):
            return True
        # Written so that NaN, which compares false to everything, is refused.
        above = self.minimum is None or value >= self.minimum
        below = self.maximum is None or value <= self.maximum
        return above and below


def setting(
    help: str,  # noqa: A002 -- argparse calls it so
    default: Any = dataclasses.MISSING,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: Sequence[str] = (),
) -> Any:
    """A field of a settings dataclass; required when it has no default."""
    return dataclasses.field(
        default=default, metadata={_BOUNDS: Bounds(help, minimum, maximum, tuple(choices))}, kw_only=True
    )


@dataclass(frozen=True, slots=True)
class SettingDescription:
    """One setting as --help and the documentation show it."""

    name: str
    flag: str
    variable: str
    kind: type
    bounds: Bounds
    default: object

    @property
    def required(self) -> bool:
        return self.default is dataclasses.MISSING

    def parse(self, text: str, source: str) -> Any:
        """Converts and checks a value; `source` names where it came from, for the error."""
        try:
            value = _convert(self.kind, text)
        except ValueError as error:
            raise SettingError(f"{source} is {text!r}, must be {_kind_name(self.kind)}") from error
        if not self.bounds.allow(value):
            raise SettingError(f"{source} is {text}, {self.bounds.text()}")
        return value

    def help(self) -> str:
        default = "required" if self.required else f"default: {self.default}" if self.default not in (None, "") else ""
        notes = "; ".join(filter(None, [self.bounds.text(), default, self.variable]))
        return f"{self.bounds.help} ({notes})".replace("%", "%%")


def _kind_name(kind: type) -> str:
    return {int: "a whole number", float: "a number", bool: "true or false"}.get(kind, f"a {kind.__name__}")


def _convert(kind: type, text: str) -> Any:
    if kind is bool:
        if text.lower() in _TRUE | _FALSE:
            return text.lower() in _TRUE
        raise ValueError(text)
    return kind(text)


def _kind_of(hint: Any) -> type:
    """The type to convert to: `Path | None` converts to Path."""
    if get_origin(hint) in (Union, types.UnionType):
        hint = next(part for part in get_args(hint) if part is not type(None))
    if not isinstance(hint, type) or not issubclass(hint, str | int | float | Path):
        raise TypeError(f"a setting cannot be a {hint}")
    return hint


def describe(settings_type: type) -> list[SettingDescription]:
    """All settings of a dataclass in the order of its fields."""
    hints = get_type_hints(settings_type)
    return [
        SettingDescription(
            name=field.name,
            flag="--" + field.name.replace("_", "-"),
            variable=ENVIRONMENT_PREFIX + field.name.upper(),
            kind=_kind_of(hints[field.name]),
            bounds=field.metadata[_BOUNDS],
            default=field.default,
        )
        for field in dataclasses.fields(settings_type)
    ]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SettingError(message)


def _parser(program: str, description: str, settings: Sequence[SettingDescription]) -> argparse.ArgumentParser:
    parser = _Parser(prog=program, description=description, allow_abbrev=False)
    for item in settings:
        metavar = item.name.upper() if item.kind is not bool else "true|false"
        # `--flag` alone means true; every other value is checked by SettingDescription, not by argparse.
        arity: dict[str, Any] = {"nargs": "?", "const": "true"} if item.kind is bool else {}
        parser.add_argument(item.flag, dest=item.name, metavar=metavar, help=item.help(), **arity)
    return parser


def load(
    settings_type: type[T], arguments: Sequence[str], environment: Mapping[str, str], *, program: str = "kintsugi"
) -> T:
    """Reads the settings; raises SettingError. A flag wins over its variable, a variable over the default."""
    descriptions = describe(settings_type)
    parsed = vars(_parser(program, settings_type.__doc__ or "", descriptions).parse_args(list(arguments)))
    values = {}
    for item in descriptions:
        if parsed[item.name] is not None:
            values[item.name] = item.parse(parsed[item.name], item.flag)
        elif environment.get(item.variable):
            values[item.name] = item.parse(environment[item.variable], item.variable)
        elif item.required:
            raise SettingError(f"{item.flag} is missing, give it or set {item.variable}")
    return settings_type(**values)


def load_or_exit(settings_type: type[T], *, program: str) -> T:
    """Reads the settings of this process and exits with status 2 and one line when they are wrong."""
    try:
        return load(settings_type, sys.argv[1:], os.environ, program=program)
    except SettingError as error:
        sys.stderr.write(f"{program}: {error}\n")
        raise SystemExit(EXIT_USAGE) from error


@dataclass(frozen=True, slots=True)
class ProcessSettings:
    """What every process of the cluster is told. Coordinator and shard server add theirs by inheritance."""

    data: Path = setting("folder that holds what this process must remember; one process per folder")
    listen: str = setting("host and port to listen on; port 0 takes a free one", "127.0.0.1:0")
    advertise: str = setting("host and port under which others reach this process; empty: the one it listens on", "")
    redis: str = setting("Redis or Valkey: redis://, rediss://, unix://, sentinel:// or cluster://")
    namespace: str = setting("prefix of all keys in Redis, so that clusters can share one", "kintsugi")
    lease_s: float = setting(
        "seconds after which others may take this process for gone; raise it on slow networks, lower it to react sooner",
        5.0,
        minimum=1,
        maximum=600,
    )
    log_format: str = setting("how log lines look", "json", choices=("json", "console"))
    log_level: str = setting(
        "the least severe level that is logged", "info", choices=("debug", "info", "warning", "error")
    )
    metrics_listen: str = setting(
        "host and port to serve Prometheus metrics on, over HTTP at /metrics; port 0 takes a free one, which is logged; "
        "empty: no metrics are served",
        "",
    )
    trace_to: str = setting(
        "where traces go: http://HOST:PORT or https://HOST:PORT of an OTLP collector (gRPC; needs the extra otlp), or "
        "file:PATH for one JSON object per line; empty: nothing is traced",
        "",
    )
