"""Loads the log's Lua scripts: each stands on the shared chain.lua and head.lua and takes the same first three keys."""

from kintsugi.keys import Keys
from kintsugi.redis_client import Script

_PACKAGE = "kintsugi.log"


def log_script(name: str) -> Script:
    return Script(_PACKAGE, "chain.lua", "head.lua", name)


def shard_keys(keys: Keys, uid: str, shard: int) -> list[str]:
    """KEYS[1] to KEYS[3] of every script: head, log, positions."""
    of_shard = keys.shard(uid, shard)
    return [of_shard.head, of_shard.log, of_shard.positions]
