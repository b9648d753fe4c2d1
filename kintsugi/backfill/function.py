"""Embeds with a function of Python, named as module:function: a list of texts goes in, an n x d array comes out."""

import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kintsugi.backfill.embedder import EmbedFailed, F32Matrix, matrix_of
from kintsugi.errors import InvalidArgument, KintsugiError
from kintsugi.sdk.upgrade_types import DocumentToEmbed


class FunctionEmbedder:
    needs_text = True

    def __init__(self, function: Callable[[list[str]], Any], name: str) -> None:
        self._function = function
        self._name = name

    @classmethod
    def load(cls, spec: str) -> "FunctionEmbedder":
        """Imports module:function; modules of the working directory are found, too."""
        module_name, _, name = spec.partition(":")
        here = str(Path.cwd())
        if here not in sys.path:
            sys.path.insert(0, here)
        try:
            function = getattr(importlib.import_module(module_name), name)
        except ImportError as error:
            raise InvalidArgument("embed", f"is {spec}: {error}", "must name a module that can be imported") from error
        except AttributeError as error:
            raise InvalidArgument("embed", f"is {spec}", f"must name a function of {module_name}") from error
        if not callable(function):
            raise InvalidArgument("embed", f"is {spec}", f"must name a function, {name} is none")
        return cls(function, spec)

    def embed(self, documents: Sequence[DocumentToEmbed]) -> F32Matrix:
        try:
            vectors = self._function([document.text for document in documents])
        except KintsugiError:
            raise
        except Exception as error:
            # It may ask somebody else, who is away for a moment.
            raise EmbedFailed(f"{self._name} raised {type(error).__name__}: {error}") from error
        return matrix_of(vectors, len(documents), self._name)

    def close(self) -> None:
        """There is nothing to close."""
