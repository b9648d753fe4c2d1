"""Read your own writes, whichever coordinator answers.

A write returns a token, a few bytes that may travel with whatever your program passes on: a job, a cookie, a message. A
read that is given it as `at_least` waits until it sees the write. Without a token a read is quick and may be a moment
behind.

    python examples/read_your_writes.py [ADDRESS...]
"""

import sys

import numpy as np

from kintsugi import Client, Model

COLLECTION = "read-your-writes"
WRITES = 20


def main(addresses: list[str]) -> None:
    random = np.random.default_rng(4)
    # Two clients, as of two programs; with several coordinators each uses another one.
    with Client(addresses[0]) as writer, Client(addresses[-1]) as reader:
        writer.create_collection(COLLECTION, Model("my-model", dimension=16))

        seen = 0
        for number in range(WRITES):
            vector = random.normal(size=16).astype(np.float32)
            written = writer.upsert(COLLECTION, [number], [vector], attributes=[{"number": number}])
            found = reader.search(COLLECTION, vector, k=1, at_least=written.token, attributes=True)
            seen += found.hits[0].attributes == {"number": number}
        print(f"{seen} of {WRITES} writes through {addresses[0]} were seen at once through {addresses[-1]}")
        print(f"documents: {reader.count(COLLECTION, at_least=written.token)}")

        writer.delete_collection(COLLECTION)


if __name__ == "__main__":
    main(sys.argv[1:] or ["127.0.0.1:7700"])
