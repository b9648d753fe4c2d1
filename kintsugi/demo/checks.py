"""What the demo promises, and whether it held: the list at the end of the film.

A promise without a check counts as broken, so that a demo which left something out cannot pass. Pure but for showing.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from rich.console import Console
from rich.markup import escape


class Promise(StrEnum):
    """Each one is kept or broken once per film. The words are completed by what was measured."""

    IMPORTED = "every document is imported"
    COUNTED = "the collection counts them all"
    ANSWERED = "every question is answered by all shards and documents"
    EXACT = "exact search gives the answers that numpy gives, ids and scores"
    FOUND = "the index finds what exact search finds"
    NO_FAILURE = "a shard server is killed, and not one search fails"
    RIGHT_THROUGHOUT = "the answers stay complete and right while it is gone and while it returns"
    WRITABLE = "writes go on while it is gone"
    BACK_IN_SYNC = "the killed shard server is back in sync, with the writes that it missed"
    DRAINED = "every process of the cluster drains and exits with status 0"
    SAME_DOCUMENTS = "after the restart every document is there, equal in text, attributes, vector and version"
    SAME_COUNT = "after the restart the collection counts as many documents"
    SAME_ANSWERS = "after the restart the same questions have the same answers"
    STILL_FOUND = "after the restart the index finds what exact search finds"
    BOTH_SERVED = "while the model is upgraded, clients of both models search, and not one search fails"
    OLD_RIGHT = "clients of the old model have right answers all the time"
    CURVE = "clients of the new model find ever more, and never less than by the old model alone"
    REEMBEDDED = "when all documents are re-embedded, they find what numpy finds"
    CUT_OVER = "after the cut-over the new model is the one that requests mean"
    OLD_ANSWERS = "after the rollback the old answers are back, ids and scores"
    OLD_DOCUMENTS = "after the rollback every document is there, and those without an old vector are found and flagged"


@dataclass(slots=True)
class Checks:
    """Collects the outcomes in the order in which they are learnt."""

    kept: dict[Promise, bool] = field(default_factory=dict)
    _measured: dict[Promise, str] = field(default_factory=dict)
    _failure: str = ""

    def add(self, promise: Promise, held: bool, measured: str = "") -> None:
        """A promise that is checked twice must hold twice."""
        self.kept[promise] = held and self.kept.get(promise, True)
        self._measured[promise] = "; ".join(filter(None, (self._measured.get(promise), measured)))

    def end_early(self, why: str) -> None:
        """The film broke off; what was not checked until then is broken."""
        self._failure = why

    @property
    def broken(self) -> set[Promise]:
        return {promise for promise in Promise if not self.kept.get(promise, False)}

    @property
    def all_held(self) -> bool:
        return not self.broken and not self._failure

    def show(self, console: Console) -> None:
        console.print("\n[bold]Checks[/bold]")
        for promise, held in self.kept.items():
            measured = self._measured[promise]
            self._line(console, f"{promise}: {measured}" if measured else str(promise), held)
        if self._failure:
            self._line(console, f"the demo runs to its end: {self._failure}", held=False)
        for promise in Promise:
            if promise not in self.kept:
                self._line(console, f"{promise}: not checked", held=False)

    @staticmethod
    def _line(console: Console, text: str, held: bool) -> None:
        mark = "[green]\\[ok][/green]" if held else "[red]\\[FAILED][/red]"
        console.print(f"  {mark} {escape(text)}", highlight=False, soft_wrap=True)
