"""gRPC channels and the channel arguments that both sides of every connection share.

All channels of a process go through one ChannelPool, so that an address is connected once. Make channels only inside
a running event loop, and after any fork. Every call carries the request id and the trace context of the task that makes
it; gRPC's own interceptors would cost more than that by far. Knows nothing about services.
"""

from collections.abc import Callable, Collection
from typing import Any

import grpc.aio

from kintsugi.limits import MAX_MESSAGE_BYTES
from kintsugi.telemetry.tracing import Metadata, outgoing_metadata

# What a call of a method carries, asked in the task that makes the call.
MetadataFor = Callable[[str], Metadata]

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


def channel(address: str, metadata_for: MetadataFor = outgoing_metadata) -> grpc.aio.Channel:
    """An unencrypted channel to host:port with the limits and keepalive of this project."""
    return _CarryingChannel(grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS), metadata_for)


class _CarryingChannel(grpc.aio.Channel):
    """Adds metadata to each call; everything else is the channel within."""

    def __init__(self, within: grpc.aio.Channel, metadata_for: MetadataFor) -> None:
        self._within = within
        self._metadata_for = metadata_for

    def _carrying(self, method: str, call: Any) -> Any:
        metadata_for = self._metadata_for

        def carry(*args: Any, metadata: Any = None, **named: Any) -> Any:
            carried = metadata_for(method[1:])
            return call(*args, metadata=(*metadata, *carried) if metadata else carried, **named)

        return carry

    def unary_unary(self, method: str, *args: Any, **named: Any) -> Any:
        return self._carrying(method, self._within.unary_unary(method, *args, **named))

    def unary_stream(self, method: str, *args: Any, **named: Any) -> Any:
        return self._carrying(method, self._within.unary_stream(method, *args, **named))

    def stream_unary(self, method: str, *args: Any, **named: Any) -> Any:
        return self._carrying(method, self._within.stream_unary(method, *args, **named))

    def stream_stream(self, method: str, *args: Any, **named: Any) -> Any:
        return self._carrying(method, self._within.stream_stream(method, *args, **named))

    async def __aenter__(self) -> "_CarryingChannel":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        await self._within.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self._within.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._within.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self._within.channel_ready()


class ChannelPool:
    """One channel per address, made when first asked for."""

    def __init__(self, metadata_for: MetadataFor = outgoing_metadata) -> None:
        self._metadata_for = metadata_for
        self._channels: dict[str, grpc.aio.Channel] = {}

    def get(self, address: str) -> grpc.aio.Channel:
        found = self._channels.get(address)
        if found is None:
            found = self._channels[address] = channel(address, self._metadata_for)
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
