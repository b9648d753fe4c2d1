"""What a coordinator tells at a scrape, beyond what every process tells."""

from collections.abc import Iterable
from dataclasses import dataclass

from coordinator.admission import Admission
from coordinator.writes import Writes
from kintsugi.telemetry import metric_names as names
from kintsugi.telemetry.metrics import Sample


@dataclass(frozen=True, slots=True)
class Observing:
    admission: Admission
    writes: Writes

    def samples(self) -> Iterable[Sample]:
        admitted = self.admission.stats()
        yield Sample(names.RUNNING_QUERIES, admitted.running)
        yield Sample(names.WAITING_QUERIES, admitted.waiting)
        yield Sample(names.PENDING_WRITE_BYTES, self.writes.pending_bytes)
