"""Create a collection, write documents, search them, read them back.

python examples/quickstart.py [ADDRESS...]
"""

import sys

import numpy as np

from kintsugi import Client, Model

COLLECTION = "quickstart"


def main(addresses: list[str]) -> None:
    random = np.random.default_rng(1)
    vectors = random.normal(size=(1000, 32)).astype(np.float32)  # yours come from an embedding model

    with Client(addresses) as client:
        client.create_collection(COLLECTION, Model("my-model", dimension=32), metric="cosine")

        # Ids are integers or strings. The write returns when it is synced to disk.
        written = client.bulk_upsert(
            COLLECTION,
            ids=[f"article-{number}" for number in range(1000)],
            vectors=vectors,
            attributes=[{"section": number % 7} for number in range(1000)],
            texts=[f"The text of article {number}" for number in range(1000)],
        )
        print(f"wrote {written.applied} documents in {written.elapsed_s:.2f} s")

        # With the token of the write the search sees it for sure.
        found = client.search(COLLECTION, vectors[42], k=3, attributes=True, text=True, at_least=written.token)
        for hit in found:
            print(f"{hit.score:.4f}  {hit.id}  {hit.attributes}  {hit.text}")
        print(f"searched {found.coverage.documents_covered} of {found.coverage.documents_total} documents")

        (document,) = client.get(COLLECTION, ["article-42"], vectors=True)
        print(f"article-42 has version {document.version} and {len(document.vectors['my-model'])} dimensions")

        client.delete_collection(COLLECTION)


if __name__ == "__main__":
    main(sys.argv[1:] or ["127.0.0.1:7700"])
