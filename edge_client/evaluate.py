"""A model on rows it did not learn from: loss, accuracy, ROC-AUC, and the reconstruction threshold. Imports torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from edge_client.interrupted import Interrupted
from edge_client.models import Model
from floe.errors import DataError
from floe.report import Metrics

BATCH = 512

Scores = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


def roc_auc(labels: npt.NDArray[np.bool_], scores: Scores) -> float | None:
    """The chance that a positive row scores above a negative one, ties counting half; None without both.

    Mann-Whitney's U from ranks, equal scores sharing the middle one (Hanley & McNeil 1982). Both of shape (rows,).
    """
    positives, negatives = int(labels.sum()), int((~labels).sum())
    if not positives or not negatives:
        return None
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    middle_rank = np.cumsum(count) - (count - 1) / 2
    u = middle_rank[place][labels].sum() - positives * (positives + 1) / 2
    return float(u / (positives * negatives))


def reconstruction_errors(model: Model, x: Tensor, stop: Callable[[], bool]) -> Scores:
    """The mean squared error of every row, float64 of shape (rows,); infinite where the model gave no number."""
    parts = [(out.double() - batch.double()).square().flatten(1).mean(1) for batch, out in _forward(model, x, stop)]
    errors: Scores = torch.cat(parts).numpy()
    return np.nan_to_num(errors, nan=np.inf, posinf=np.inf)


def training_errors(model: Model, normal: Tensor, stop: Callable[[], bool]) -> Scores:
    """`reconstruction_errors` of the `normal` rows trained on. Raises `DataError` if one of them is not finite."""
    errors = reconstruction_errors(model, normal, stop)
    _finite(model, float(errors.max()), "largest error on the training rows")
    return errors


def threshold(model: Model, normal: Tensor, quantile: float, stop: Callable[[], bool]) -> float:
    """The error above which a row is an anomaly: a quantile of `training_errors`, which see."""
    return float(np.quantile(training_errors(model, normal, stop), quantile))


def reconstruction(model: Model, x: Tensor, y: Labels, limit: float, stop: Callable[[], bool]) -> Metrics:
    """Metrics of an autoencoder on test rows; label 0 is normal.

    Loss is the mean error of the normal rows (of all, if none is normal), accuracy the share of rows on the right
    side of `limit`. Raises `DataError` if the loss is not finite.
    """
    errors = reconstruction_errors(model, x, stop)
    anomaly = y != 0
    loss = float(errors[anomaly == anomaly.all()].mean())
    right = float(((errors > limit) == anomaly).mean())
    return _metrics(model, loss, right, roc_auc(anomaly, errors))


def classification(model: Model, x: Tensor, y: Labels, stop: Callable[[], bool]) -> Metrics:
    """Mean cross-entropy, accuracy, and for two classes the ROC-AUC. Raises `DataError` if the loss is not finite."""
    logits = torch.cat([out for _, out in _forward(model, x, stop)]).double()
    loss = nn.functional.cross_entropy(logits, torch.from_numpy(y.copy())).item()
    right = float((logits.argmax(1).numpy() == y).mean())
    if logits.shape[1] != 2:
        return _metrics(model, loss, right, None)
    # The log-odds rank as softmax's probability does, and do not saturate at 1.
    return _metrics(model, loss, right, roc_auc(y == 1, (logits[:, 1] - logits[:, 0]).numpy()))


def _forward(model: Model, x: Tensor, stop: Callable[[], bool]) -> Iterator[tuple[Tensor, Tensor]]:
    model.module.eval()
    with torch.no_grad():
        for batch in torch.split(x, BATCH):
            if stop():
                raise Interrupted
            yield batch, model.outputs(batch)


def _metrics(model: Model, loss: float, accuracy: float, auc: float | None) -> Metrics:
    _finite(model, loss, "loss on the test rows")
    return Metrics(loss=loss, accuracy=accuracy, roc_auc=auc)


def _finite(model: Model, value: float, what: str) -> None:
    if not math.isfinite(value):
        raise DataError(f"model {model.name}: the {what} is {value}: its weights or the data are extreme")
