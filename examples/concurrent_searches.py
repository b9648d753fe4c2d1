"""Many searches at once with asyncio, and the same as one batch.

Searches that start together share a call to the cluster, so that nobody has to collect them. When the queries are at
hand together anyway, search_batch is faster still, and answers in numpy columns.

    python examples/concurrent_searches.py [ADDRESS...]
"""

import asyncio
import sys
import time

import numpy as np

from kintsugi import AsyncClient, Model

COLLECTION = "concurrent-searches"


async def main(addresses: list[str]) -> None:
    random = np.random.default_rng(2)
    vectors = random.normal(size=(2000, 64)).astype(np.float32)
    queries = random.normal(size=(200, 64)).astype(np.float32)

    async with AsyncClient(addresses) as client:
        await client.create_collection(COLLECTION, Model("my-model", dimension=64))
        written = await client.bulk_upsert(COLLECTION, range(2000), vectors)

        started = time.perf_counter()
        answers = await asyncio.gather(
            *(client.search(COLLECTION, query, k=5, exact=True, at_least=written.token) for query in queries)
        )
        print(f"{len(answers)} concurrent searches took {time.perf_counter() - started:.2f} s")

        started = time.perf_counter()
        batch = await client.search_batch(COLLECTION, queries, k=5, exact=True, at_least=written.token)
        print(f"one batch of {len(batch)} took {time.perf_counter() - started:.2f} s")

        one_by_one = np.array([[hit.id for hit in answer] for answer in answers])
        print(f"the answers are the same: {np.array_equal(one_by_one, batch.ids)}")

        await client.delete_collection(COLLECTION)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:] or ["127.0.0.1:7700"]))
