"""The names of every key that Kintsugi keeps in Redis.

Guarantees that all keys one script touches share a hash tag, so that they sit in one slot of a Redis Cluster: the
registry's keys share `{namespace}`, the keys of one shard's log share `{namespace:uid/shard}`. Only redis_client, the
registry's store and the log use this module. Knows nothing of what the keys hold.
"""

import re
from dataclasses import dataclass

from kintsugi.errors import InvalidArgument

DEFAULT_NAMESPACE = "kintsugi"


@dataclass(frozen=True, slots=True)
class ShardKeys:
    """The keys of one shard's log."""

    tag: str

    @property
    def head(self) -> str:
        return f"{self.tag}:head"

    @property
    def log(self) -> str:
        return f"{self.tag}:log"

    @property
    def positions(self) -> str:
        return f"{self.tag}:positions"

    def request(self, request_id: str) -> str:
        return f"{self.tag}:request:{request_id}"


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one cluster. Clusters that share a Redis differ in their namespace."""

    namespace: str = DEFAULT_NAMESPACE

    def __post_init__(self) -> None:
        if not self.namespace or set(self.namespace) & set("{}"):
            raise InvalidArgument("namespace", f"is {self.namespace!r}", "must be non-empty and without braces")

    @property
    def cluster(self) -> str:
        return f"{{{self.namespace}}}:cluster"

    @property
    def revision(self) -> str:
        return f"{{{self.namespace}}}:revision"

    @property
    def registry(self) -> str:
        return f"{{{self.namespace}}}:registry"

    @property
    def events(self) -> str:
        return f"{{{self.namespace}}}:events"

    @property
    def leases(self) -> str:
        return f"{{{self.namespace}}}:leases"

    @property
    def recovery(self) -> str:
        return f"{{{self.namespace}}}:recovery"

    def artifact(self, digest: str) -> str:
        """Artifacts are large: each has its own slot in a Redis Cluster."""
        return f"{{{self.namespace}:artifact/{digest}}}"

    def artifact_upload(self, digest: str, upload: str) -> str:
        """What has arrived of an artifact by one of its uploads."""
        return f"{self.artifact(digest)}:upload:{upload}"

    def shard(self, uid: str, shard: int) -> ShardKeys:
        return ShardKeys(f"{{{self.namespace}:{uid}/{shard}}}")

    @property
    def every_head(self) -> str:
        """A pattern that the heads of all logs match, and perhaps other keys: see log_of_head."""
        return re.sub(r"([*?\[\]\\^])", r"\\\1", f"{{{self.namespace}:") + "*}:head"

    def log_of_head(self, key: str) -> tuple[str, int] | None:
        """The collection's uid and the shard whose head a key is; None when it is something else, such as the head of a
        log in a namespace whose name begins with this one's."""
        found = re.fullmatch(rf"\{{{re.escape(self.namespace)}:([^:/{{}}]+)/(\d+)\}}:head", key)
        return (found[1], int(found[2])) if found else None
