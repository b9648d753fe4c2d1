"""gRPC channels and the channel arguments that both sides of every connection share.

All channels of a process go through one ChannelPool, so that an address is connected once. Make channels only inside
a running event loop, and after any fork. Knows nothing about services.
"""

from collections.abc import Collection

import grpc.aio

from kintsugi.limits import MAX_MESSAGE_BYTES

# Rich error details and request ids fit many times; gRPC's own default of 8 KiB is too close to our longest messages.
MAX_HEADER_BYTES = 32 * 2**10

LIMIT_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_metadata_size", MAX_HEADER_BYTES),
)

# A dead peer is noticed within 40 s even when nothing is sent. Servers permit a ping per 10 s (server.py): without
# their permission, keepalive gets connections closed with "too_many_pings".
CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    *LIMIT_OPTIONS,
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # A killed server comes back within a second or two; gRPC's default waits up to two minutes between attempts.
    ("grpc.initial_reconnect_backoff_ms", 100),
    # This one bounds the time of one attempt to connect.
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Retries are ours: they know which calls may be repeated.
    ("grpc.enable_retries", 0),
)


def channel(address: str) -> grpc.aio.Channel:
    """An unencrypted channel to host:port with the limits and keepalive of this project."""
    return grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)


class ChannelPool:
    """One channel per address, made when first asked for."""

    def __init__(self) -> None:
        self._channels: dict[str, grpc.aio.Channel] = {}

    def get(self, address: str) -> grpc.aio.Channel:
        found = self._channels.get(address)
        if found is None:
            found = self._channels[address] = channel(address)
        return found

    @property
    def addresses(self) -> frozenset[str]:
        return frozenset(self._channels)

    async def keep_only(self, addresses: Collection[str]) -> None:
        """Closes the channels to all other addresses; calls in flight on them fail with UNAVAILABLE or are cancelled."""
        for address in [address for address in self._channels if address not in addresses]:
            await self._channels.pop(address).close()

    async def close(self) -> None:
        await self.keep_only(())
