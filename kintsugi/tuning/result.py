"""What a tuning found, for tables, plots and JSON. Pure."""

from dataclasses import asdict, dataclass
from typing import Any

from kintsugi.tuning.front import Advice, Need, Setting, front
from kintsugi.tuning.sizes import show_bytes


@dataclass(frozen=True, slots=True)
class Subject:
    """What was tuned, and on what. `vectors` are those of the collection, `sampled` those that were measured, beside
    `queries`. `extrapolated`: recalls are estimates for more vectors than were measured."""

    collection: str
    model: str
    metric: str
    dimension: int
    shards: int
    replicas: int
    vectors: int
    sampled: int
    queries: int
    queries_from: str
    k: int
    seed: int
    extrapolated: bool


@dataclass(frozen=True, slots=True)
class Tuning:
    """`settings` are all that were measured. Memory of the need is per vector, as that of settings is."""

    subject: Subject
    need: Need
    settings: list[Setting]
    advice: Advice

    @property
    def front(self) -> list[Setting]:
        """With the chosen one, even where another beats it on what was not asked for."""
        shown = front(self.settings)
        chosen = self.advice.chosen
        if chosen is not None and chosen not in shown:
            shown.append(chosen)
        return sorted(shown, key=lambda one: (one.memory_bytes, one.recall))

    def copy_bytes(self, setting: Setting) -> float:
        """Memory of one copy of the collection: the indexes of one replica of each shard."""
        return setting.memory_bytes * self.subject.vectors

    def total_bytes(self, setting: Setting) -> float:
        """Memory of all replicas."""
        return self.copy_bytes(setting) * self.subject.replicas

    @property
    def sentence(self) -> str:
        """The advice in words."""
        chosen = self.advice.chosen
        return self._refusal() if chosen is None else f"recommended: {self._told(chosen)}"

    def _told(self, setting: Setting) -> str:
        subject = self.subject
        recall = f"recall@{subject.k} {setting.recall:.4f}"
        if subject.extrapolated:
            recall += f" ({setting.recall_at_worst:.4f} at worst)"
        memory = f"{show_bytes(self.copy_bytes(setting))} for a copy of {subject.vectors:,} vectors"
        if subject.replicas > 1:
            memory += f", {show_bytes(self.total_bytes(setting))} for all {subject.replicas} replicas"
        return (
            f"{setting.encoding.name} with oversampling {setting.oversampling:g}: {memory}; {recall}; "
            f"{setting.throughput:.2f} x the throughput of f32"
        )

    def _refusal(self) -> str:
        need, best, cheapest = self.need, self.advice.best_in_memory, self.advice.cheapest_good
        bounds = [f"recall {need.recall:g}"]
        if need.memory_bytes is not None:
            bounds.append(f"{show_bytes(need.memory_bytes * self.subject.vectors)} of memory")
        if need.throughput:
            bounds.append(f"{need.throughput:g} x the throughput of f32")
        said = [f"no setting meets {', '.join(bounds)} together"]
        if need.memory_bytes is not None:
            said.append(f"the best within the memory is {self._told(best)}" if best else "none fits the memory")
        elif best:
            said.append(f"the highest recall has {self._told(best)}")
        if cheapest:
            said.append(f"the cheapest that is good enough is {self._told(cheapest)}")
        return "; ".join(said)

    def as_json(self) -> dict[str, Any]:
        """All figures, settings on the front marked."""
        shown, chosen = self.front, self.advice.chosen
        return {
            "subject": asdict(self.subject),
            "need": asdict(self.need),
            "settings": [{**self._plain(one), "on_front": one in shown} for one in self.settings],
            "recommended": None if chosen is None else self._plain(chosen),
            "advice": self.sentence,
        }

    def _plain(self, setting: Setting) -> dict[str, Any]:
        return {
            **asdict(setting),
            "encoding": setting.encoding.name,
            "copy_bytes": round(self.copy_bytes(setting)),
            "total_bytes": round(self.total_bytes(setting)),
        }
