"""Encoding specifications between their record and the public proto. Pure; checks nothing but what it cannot express."""

from kintsugi.ann.spec import MIN_BITS, EncodingKind, EncodingSpec
from kintsugi.v1 import collections_pb2

_KINDS = {
    collections_pb2.ENCODING_KIND_UNSPECIFIED: EncodingKind.AUTOMATIC,
    collections_pb2.ENCODING_KIND_F32: EncodingKind.F32,
    collections_pb2.ENCODING_KIND_F16: EncodingKind.F16,
    collections_pb2.ENCODING_KIND_BF16: EncodingKind.BF16,
    collections_pb2.ENCODING_KIND_E4M3: EncodingKind.E4M3,
    collections_pb2.ENCODING_KIND_I8: EncodingKind.I8,
    collections_pb2.ENCODING_KIND_BINARY: EncodingKind.BINARY,
    collections_pb2.ENCODING_KIND_RECURRENT: EncodingKind.RECURRENT,
}
_NUMBERS = {kind: number for number, kind in _KINDS.items()}
# The wire carries f32: what people wrote with a few digits is shown to them with as many.
_OVERSAMPLING_DIGITS = 4


def to_message(spec: EncodingSpec) -> collections_pb2.Encoding:
    return collections_pb2.Encoding(
        kind=_NUMBERS[spec.kind], bits=spec.bits, prefix=spec.prefix, pca=spec.pca, oversampling=spec.oversampling
    )


def from_message(message: collections_pb2.Encoding) -> EncodingSpec | None:
    """The specification, with the bits of a recurrent encoding filled in; None for a kind that nobody knows."""
    kind = _KINDS.get(message.kind)
    if kind is None:
        return None
    bits = message.bits or (MIN_BITS if kind is EncodingKind.RECURRENT else 0)
    return EncodingSpec(kind, bits, message.prefix, message.pca, round(message.oversampling, _OVERSAMPLING_DIGITS))
