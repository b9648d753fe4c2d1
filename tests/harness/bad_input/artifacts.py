"""Artifacts for an upgrade between two models of 4 dimensions under cosine whose vectors are the same."""

import numpy as np

from kintsugi.metrics import Metric
from kintsugi.projections import anchors as anchors_file
from kintsugi.projections import artifact, uncertainty
from kintsugi.projections.anchors import Anchors
from kintsugi.projections.artifact import digest, pack_arrays
from kintsugi.projections.projection import Affine, F32Matrix, Kind
from kintsugi.projections.uncertainty import Uncertainty

SAMPLE = np.random.default_rng(0).standard_normal((120, 4)).astype(np.float32)


def anchors_of(old: F32Matrix, new: F32Matrix) -> bytes:
    """A file of anchors, however many."""
    return pack_arrays("kintsugi-anchors", {"old": old, "new": new})


def projection(metric: Metric = Metric.COSINE, source: int = 4, target: int = 4, scale: float = 1.0) -> bytes:
    weights = np.multiply(
        np.eye(source, target), scale, where=np.eye(source, target) > 0, out=np.zeros((source, target))
    )
    return artifact.pack(Affine(Kind.RIDGE, metric, weights.astype(np.float32), np.zeros(target, np.float32)))


def predictor(dimension: int = 4) -> bytes:
    zeros = np.zeros(dimension, np.float32)
    return uncertainty.pack(Uncertainty(zeros, zeros, zeros, 0.0, of_unit_length=True))


# What plans name by its digest. It is uploaded before they are sent.
FILES: dict[str, bytes] = {}


def named(data: bytes) -> str:
    """The digest of a file, by which a plan names it."""
    FILES[name := digest(data)] = data
    return name


PROJECTION = projection()
ANCHORS = anchors_file.pack(Anchors(SAMPLE, SAMPLE))
PREDICTOR = predictor()
