"""Projections as files: what was written is read back, what was tampered with is refused."""

import hashlib

import msgspec
import numpy as np
import pytest

from kintsugi.limits import MAX_ARTIFACT_BYTES
from kintsugi.metrics import Metric
from kintsugi.projections.artifact import ArtifactInvalid, digest, pack, unpack
from kintsugi.projections.fitting import fit_all
from kintsugi.projections.mlp import Training
from kintsugi.projections.projection import Affine, Chain, Kind, ResidualMlp


def spaces(source=6, target=9, count=300):
    random = np.random.default_rng(0)
    return random.standard_normal((count, source)).astype("<f4"), random.standard_normal((count, target)).astype("<f4")


def test_every_kind_survives_and_maps_to_the_same_bits():
    """All kinds, and a chain of two of them, map as before; equal projections have one digest."""
    source, target = spaces()
    fitted = [one for _, one in fit_all(Metric.COSINE, source, target, for_queries=True)]
    back = next(one for kind, one in fit_all(Metric.COSINE, target, source, for_queries=False) if kind is Kind.RIDGE)
    for projection in (*fitted, Chain((fitted[0], back)), Chain((Chain((fitted[0], back)), fitted[1]))):
        packed = pack(projection)
        read = unpack(packed)
        assert np.array_equal(read.apply(source), projection.apply(source))
        assert pack(read) == packed
        assert digest(pack(read)) == digest(packed)


def resealed(packed, change):
    """The same artifact with a change in its body and a checksum that fits: a forgery, not an accident."""
    body = msgspec.msgpack.decode(packed.partition(b"\n")[2])
    change(body)
    forged = msgspec.msgpack.encode(body)
    header = {"magic": "kintsugi-projection", "format_version": 1, "sha256": hashlib.sha256(forged).hexdigest()}
    return msgspec.json.encode(header) + b"\n" + forged


def set_data(body, name, values):
    body[0]["arrays"][name]["data"] = np.asarray(values, dtype="<f4").tobytes()


FORGERIES = {
    "an element that is not a number": lambda body: set_data(body, "bias", [np.nan] * 9),
    "a bias of another dimension": lambda body: body[0]["arrays"]["bias"].update(shape=[8], data=bytes(32)),
    "fewer bytes than its shape": lambda body: set_data(body, "bias", [0.0]),
    "an unknown kind": lambda body: body[0].update(kind="magic"),
    "a missing array": lambda body: body[0]["arrays"].pop("bias"),
    "a chain in a chain": lambda body: body[0].update(kind="chain"),
    "weights with one axis": lambda body: body[0]["arrays"]["weights"].update(shape=[54]),
    "no link at all": lambda body: body.clear(),
    "links that do not fit": lambda body: body.append(body[0]),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_artifact_is_refused(name):
    """Whatever is wrong inside raises the one documented error, also when the checksum was made to fit."""
    source, target = spaces()
    packed = pack(
        next(one for kind, one in fit_all(Metric.DOT, source, target, for_queries=True) if kind is Kind.RIDGE)
    )
    with pytest.raises(ArtifactInvalid):
        unpack(resealed(packed, FORGERIES[name]))


def test_a_damaged_or_foreign_artifact_is_refused():
    """A flipped byte, a cut, another format version, other bytes: never read, always told."""
    packed = pack(Affine(Kind.RIDGE, Metric.DOT, np.eye(3, dtype="<f4"), np.zeros(3, dtype="<f4")))
    flipped = packed[:-1] + bytes((packed[-1] ^ 1,))
    later = packed.replace(b'"format_version":1', b'"format_version":2')
    for damaged in (flipped, packed[:-1], later, b"", b"\n", b"{}\n", b"\xff\xfe\n", b"x" * (MAX_ARTIFACT_BYTES + 1)):
        with pytest.raises(ArtifactInvalid):
            unpack(damaged)


def test_a_projection_beyond_the_bound_is_not_written():
    """Every kind between models of 4096 dimensions fits; above 96 MiB packing refuses and says by how much."""
    size, hidden = 4096, Training().hidden
    square, narrow = np.zeros((size, size), dtype="<f4"), np.zeros((size, hidden), dtype="<f4")
    mlp = ResidualMlp(Metric.DOT, square, square[0], narrow, narrow[0], np.ascontiguousarray(narrow.T))
    packed = pack(mlp)
    assert unpack(packed).target_dimension == size
    large = Affine(Kind.RIDGE, Metric.DOT, np.zeros((4096, 6200), dtype="<f4"), np.zeros(6200, dtype="<f4"))
    with pytest.raises(ValueError, match="ridge projection from 4096 to 6200 dimensions takes .* at most 100663296"):
        pack(large)
