"""Trains the residual MLP kind: what one hidden layer can add to the ridge map. Pure, deterministic for a seed.

Adam on the squared error in minibatches, on one held-out tenth stopped early; the parameters of the best epoch are kept.
About ten seconds for 20,000 pairs of 384 dimensions on two cores.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from kintsugi.metrics import Metric
from kintsugi.projections.linear import ridge
from kintsugi.projections.projection import F32Matrix, ResidualMlp, gelu

_BATCH = 512
_ADAM_MEAN, _ADAM_SQUARE, _ADAM_EPS = 0.9, 0.999, 1e-8

Parameters = list[npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Training:
    """`patience`: epochs without gain on the held-out tenth after which training stops."""

    hidden: int = 512
    epochs: int = 40
    patience: int = 4
    rate: float = 3e-3
    seed: int = 0
    progress: Callable[[int, int], None] = field(default=lambda _epoch, _epochs: None)


def mlp(metric: Metric, source: F32Matrix, target: F32Matrix, training: Training | None = None) -> ResidualMlp:
    """Fits n x s source vectors to n x t target vectors, both prepared for the metric."""
    chosen = training or Training()
    linear = ridge(metric, source, target)
    residual = target - (source @ linear.weights + linear.bias)
    # Trained on inputs of length 1 and residuals of deviation 1, so that one rate suits all models.
    length = np.float32(np.sqrt(np.mean(np.vecdot(source, source), dtype=np.float64)) or 1.0)
    deviation = np.float32(residual.std(dtype=np.float64) or 1.0)
    held_out = np.zeros(len(source), dtype=np.bool_)
    held_out[::10] = len(source) >= 20
    inputs, outputs = (np.asarray(part, dtype=np.float32) for part in (source / length, residual / deviation))
    hidden, hidden_bias, output = _trained(inputs, outputs, held_out, chosen)
    return ResidualMlp(metric, linear.weights, linear.bias, hidden / length, hidden_bias, output * deviation)


def _trained(source: F32Matrix, residual: F32Matrix, held_out: npt.NDArray[np.bool_], training: Training) -> Parameters:
    random = np.random.default_rng(training.seed)
    inputs, outputs = source.shape[1], residual.shape[1]
    # The output begins at zero: the first epoch starts from the ridge map itself.
    parameters: Parameters = [
        (random.standard_normal((inputs, training.hidden)) * np.sqrt(2.0)).astype(np.float32),
        np.zeros(training.hidden, dtype=np.float32),
        np.zeros((training.hidden, outputs), dtype=np.float32),
    ]
    adam = _Adam(parameters)
    fitted = np.flatnonzero(~held_out)
    judged = held_out if held_out.any() else ~held_out
    best, waited = [part.copy() for part in parameters], 0
    best_error = _error(parameters, source[judged], residual[judged])
    for epoch in range(training.epochs):
        random.shuffle(fitted)
        for start in range(0, len(fitted), _BATCH):
            batch = fitted[start : start + _BATCH]
            gradients = _gradients(parameters, source[batch], residual[batch])
            adam.step(parameters, gradients, training.rate * (1 - epoch / training.epochs))
        training.progress(epoch + 1, training.epochs)
        error = _error(parameters, source[judged], residual[judged])
        if error < best_error:
            best, best_error, waited = [part.copy() for part in parameters], error, 0
        elif (waited := waited + 1) >= training.patience:
            break
    return best


def _error(parameters: Parameters, source: F32Matrix, residual: F32Matrix) -> float:
    hidden, hidden_bias, output = parameters
    return float(np.mean((gelu(source @ hidden + hidden_bias) @ output - residual) ** 2))


def _gradients(parameters: Parameters, source: F32Matrix, residual: F32Matrix) -> Parameters:
    hidden, hidden_bias, output = parameters
    before = source @ hidden + hidden_bias
    activated = gelu(before)
    # Summed over the outputs, averaged over the batch: the scale of one vector's error.
    error = (activated @ output - residual) * np.float32(2.0 / len(source))
    back = (error @ output.T) * _gelu_slope(before)
    return [source.T @ back, back.sum(axis=0), activated.T @ error]


def _gelu_slope(values: F32Matrix) -> F32Matrix:
    cubic = np.float32(0.044715) * values * values
    bent = np.tanh(np.float32(0.7978845608) * values * (np.float32(1.0) + cubic))
    slope = np.float32(0.7978845608) * (np.float32(1.0) + np.float32(3.0) * cubic)
    return np.asarray(np.float32(0.5) * (1 + bent + values * (1 - bent * bent) * slope), dtype=np.float32)


class _Adam:
    """Adam (Kingma and Ba, 2015), in place."""

    def __init__(self, parameters: Parameters) -> None:
        self._steps = 0
        self._means = [np.zeros_like(part) for part in parameters]
        self._squares = [np.zeros_like(part) for part in parameters]

    def step(self, parameters: Parameters, gradients: Parameters, rate: float) -> None:
        self._steps += 1
        mean_part, square_part = 1 - _ADAM_MEAN**self._steps, 1 - _ADAM_SQUARE**self._steps
        rate *= np.sqrt(square_part) / mean_part
        for at, gradient in enumerate(gradients):
            self._means[at] += (1 - _ADAM_MEAN) * (gradient - self._means[at])
            self._squares[at] += (1 - _ADAM_SQUARE) * (gradient * gradient - self._squares[at])
            parameters[at] -= np.float32(rate) * self._means[at] / (np.sqrt(self._squares[at]) + _ADAM_EPS)
