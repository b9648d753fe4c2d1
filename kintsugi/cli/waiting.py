"""Which shards wait for recovery, for whom, and what giving them up would cost. Pure."""

from dataclasses import dataclass

from kintsugi.sdk.status import ClusterStatus, ReplicaStatus, ShardStatus


@dataclass(frozen=True, slots=True)
class Waiting:
    """A shard whose log is recovering, or whose in-sync replicas are all gone. `silent` are the in-sync members that do
    not answer or whose replica failed, with their addresses; `kept_seq` is how far those that answer hold the shard."""

    collection: str
    shard: int
    message: str
    silent: tuple[str, ...]
    kept_seq: int

    @property
    def question(self) -> str:
        who = ", ".join(self.silent) or "nobody, since every replica answers now"
        return (
            f"shard {self.shard} of collection {self.collection} would recover without {who}.\n"
            f"Every write after sequence number {self.kept_seq:,} that only they hold is lost for good, and they are not "
            "believed when they come back.\nGive them up"
        )


def waiting(status: ClusterStatus) -> tuple[Waiting, ...]:
    addresses = {member.id: member.address for member in status.members}
    return tuple(
        Waiting(
            collection=collection.name,
            shard=shard.shard,
            message=shard.message or "no replica in sync answers",
            silent=tuple(
                f"{replica.member} ({addresses.get(replica.member, 'of unknown address')})"
                for replica in _in_sync(shard)
                if not _tells(replica)
            ),
            kept_seq=max((replica.durable_seq for replica in shard.replicas if _tells(replica)), default=0),
        )
        for collection in status.collections
        for shard in collection.shards
        if shard.log_state == "recovering" or not any(map(_tells, _in_sync(shard)))
    )


def _in_sync(shard: ShardStatus) -> list[ReplicaStatus]:
    return [replica for replica in shard.replicas if replica.state == "in-sync"]


def _tells(replica: ReplicaStatus) -> bool:
    """Whether a recovery can hear it."""
    return replica.reachable and replica.phase != "failed"


def find(found: tuple[Waiting, ...], collection: str, shard: int) -> Waiting | None:
    return next((one for one in found if (one.collection, one.shard) == (collection, shard)), None)
