"""Which embedder a word on the command line means."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from kintsugi.backfill.command import CommandEmbedder
from kintsugi.backfill.embedder import Embedder
from kintsugi.backfill.embeddings_api import ApiEmbedder
from kintsugi.backfill.function import FunctionEmbedder
from kintsugi.errors import InvalidArgument

_FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


@dataclass(frozen=True, slots=True)
class EmbedOptions:
    """`embed`: an http or https address, module:function, or else a command of the shell. `api_model` and `api_key_variable`
    are for addresses. `timeout_s`: the longest silence."""

    embed: str
    timeout_s: float
    api_model: str = ""
    api_key_variable: str = ""


def embedder_of(options: EmbedOptions, model: str, environment: Mapping[str, str] | None = None) -> Embedder:
    """`model`: the name of the model in the collection."""
    spec = options.embed
    if spec.startswith(("http://", "https://")):
        key = _key(options.api_key_variable, os.environ if environment is None else environment)
        return ApiEmbedder(spec, options.api_model or model, key, options.timeout_s)
    for flag, value in (("api_model", options.api_model), ("api_key_variable", options.api_key_variable)):
        if value:
            raise InvalidArgument(flag, f"is {value}", "must be left out: embed is no http address")
    if _FUNCTION.fullmatch(spec):
        return FunctionEmbedder.load(spec)
    if not spec.strip():
        raise InvalidArgument("embed", "is empty", "must be a command, module:function or an http address")
    return CommandEmbedder(spec, options.timeout_s)


def _key(variable: str, environment: Mapping[str, str]) -> str:
    if not variable:
        return ""
    key = environment.get(variable, "").strip()
    if not key:
        raise InvalidArgument("api_key_variable", f"is {variable}", "must name an environment variable that is set")
    return key
