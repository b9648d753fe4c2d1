"""What can go wrong, and what to do: a malformed request, a refused item, a shortage, an unknown outcome.

Every error is a KintsugiError whose class is the gRPC status; docs/errors.md lists them with their reasons. The SDK
itself retries what may pass (UNAVAILABLE, RESOURCE_EXHAUSTED) within the time of the call.

    python examples/handling_errors.py [ADDRESS...]
"""

import sys
import uuid

import numpy as np

from kintsugi import Client, DeadlineExceeded, InvalidArgument, KintsugiError, Model, NotFound, Unavailable

COLLECTION = "handling-errors"


def main(addresses: list[str]) -> None:
    vectors = np.eye(3, dtype=np.float32)
    with Client(addresses) as client:
        client.create_collection(COLLECTION, Model("my-model", dimension=3))

        # A malformed request is refused as a whole: the error names the field, its value and the bound.
        try:
            client.upsert(COLLECTION, [1], np.array([[1.0, float("inf"), 0.0]], dtype=np.float32))
        except InvalidArgument as error:
            print(f"{error.status}: {error.message} (field {error.field})")

        # An item whose condition does not hold is refused in the result; the others are written.
        client.upsert(COLLECTION, [1], vectors[:1])
        result = client.upsert(COLLECTION, [1, 2, 3], vectors, condition="insert")
        for doc_id, outcome, message in zip([1, 2, 3], result.outcomes, result.messages, strict=True):
            print(f"document {doc_id}: {outcome} {message}")

        # What is not there is an error of its own.
        try:
            client.search("nobody", vectors[0])
        except NotFound as error:
            print(f"{error.status}: {error.message}")

        print(f"outcome of a careful write: {write_carefully(client, vectors)}")
        client.delete_collection(COLLECTION)


def write_carefully(client: Client, vectors: np.ndarray, attempts: int = 3) -> str:
    """Writes once, whatever happens on the way. The request id makes a repetition harmless for ten minutes: whether the
    write that timed out was applied or not, it is applied once."""
    request_id = uuid.uuid4().hex
    for attempt in range(attempts):
        try:
            result = client.upsert(COLLECTION, [7], vectors[:1], request_id=request_id, timeout_s=5)
            return result.outcomes[0]
        except (DeadlineExceeded, Unavailable) as error:
            print(f"attempt {attempt}: {error.status}: {error.message}; repeating with the same request id")
        except KintsugiError as error:
            return f"given up: {error.status}: {error.message} ({error.reason})"
    return "unknown"


if __name__ == "__main__":
    main(sys.argv[1:] or ["127.0.0.1:7700"])
