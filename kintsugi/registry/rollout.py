"""Whose turn it is to build an index version beside the one that serves: one replica of a shard after the other. Pure.

The claim is the record of the version itself: who builds has one that is BUILDING or READY, and the compare-and-set that
puts it there sees all others. It keeps capacity, not correctness: replicas whose member lost its lease do not count, so
that nobody waits for the dead, and one that comes back to life may for a while build beside another.
"""

from collections.abc import Container

from kintsugi.registry.records import View


def is_alone(view: View, member: str, collection_uid: str, shard: int) -> bool:
    """Whether the member has the only replica of a shard, which waits for nobody."""
    found = view.shards.get((collection_uid, shard))
    return found is not None and set(found.replicas) == {member}


def why_wait(view: View, alive: Container[str], member: str, collection_uid: str, shard: int) -> str:
    """Why the member's replica of a shard may not begin to build now; '' when it may. `alive`: members with a lease."""
    found = view.shards.get((collection_uid, shard))
    if found is None or member not in found.replicas:
        return "the registry places no such replica here"
    for other in sorted(found.replicas):
        if other == member or other not in alive:
            continue
        for version in view.index_versions.get((collection_uid, shard, other), ()):
            if version.state.is_in_the_making:
                return f"version {version.version} of the replica on {other} is {version.state}"
    return ""
