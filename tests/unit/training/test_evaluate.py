"""Metrics against hand-worked numbers and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from edge_client import evaluate
from edge_client.evaluate import Interrupted, roc_auc
from edge_client.models import Model, Objective
from floe.errors import DataError


class Same(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


class Zero(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


def never() -> bool:
    return False


def model(module: nn.Module, objective: Objective) -> Model:
    return Model(module, objective, "'test'")


@given(st.lists(st.tuples(st.booleans(), st.integers(-5, 5)), min_size=2, max_size=60))
def test_roc_auc_is_that_of_scikit_learn_ties_included(rows: list[tuple[bool, int]]) -> None:
    labels = np.array([label for label, _ in rows])
    scores = np.array([score for _, score in rows], np.float64)
    if labels.all() or not labels.any():
        assert roc_auc(labels, scores) is None
    else:
        assert roc_auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_roc_auc_ranks_infinite_errors_highest() -> None:
    assert roc_auc(np.array([False, False, True]), np.array([0.0, 1.0, np.inf])) == 1.0


def test_classification_by_hand() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 1.0]])
    metrics = evaluate.classification(model(Same(), "classification"), logits, np.array([0, 1, 1]), never)
    assert metrics.loss == pytest.approx((np.log1p(np.exp(-2)) + np.log1p(np.exp(-1)) + np.log1p(np.exp(2))) / 3)
    assert metrics.accuracy == pytest.approx(2 / 3)
    assert metrics.roc_auc == 0.75  # log-odds -2 against 1 and -2: one pair right, one tied


def test_roc_auc_does_not_saturate_where_softmax_does() -> None:
    logits = torch.tensor([[0.0, 50.0], [0.0, 60.0]])
    assert evaluate.classification(model(Same(), "classification"), logits, np.array([0, 1]), never).roc_auc == 1.0


def test_more_than_two_classes_have_no_roc_auc() -> None:
    metrics = evaluate.classification(model(Same(), "classification"), torch.eye(3), np.arange(3), never)
    assert (metrics.accuracy, metrics.roc_auc) == (1.0, None)


def test_reconstruction_by_hand() -> None:
    x = torch.tensor([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0], [0.0, 4.0]])  # errors 1, 4, 9, 8
    metrics = evaluate.reconstruction(model(Zero(), "reconstruction"), x, np.array([0, 0, 1, 1]), 8.5, never)
    assert metrics.loss == 2.5
    assert metrics.accuracy == 0.75
    assert metrics.roc_auc == 1.0


def test_the_loss_is_that_of_all_rows_if_none_is_normal() -> None:
    x = torch.tensor([[1.0], [3.0]])
    metrics = evaluate.reconstruction(model(Zero(), "reconstruction"), x, np.array([1, 1]), 2.0, never)
    assert (metrics.loss, metrics.accuracy, metrics.roc_auc) == (5.0, 0.5, None)


def test_the_threshold_is_a_quantile_of_the_errors() -> None:
    x = torch.arange(101.0).sqrt().reshape(-1, 1)
    assert evaluate.threshold(model(Zero(), "reconstruction"), x, 0.95, never) == pytest.approx(95.0)


def test_batches_do_not_change_the_result() -> None:
    x = torch.arange(float(evaluate.BATCH + 3)).reshape(-1, 1)
    errors = evaluate.reconstruction_errors(model(Zero(), "reconstruction"), x, never)
    assert errors.tolist() == [float(i) ** 2 for i in range(evaluate.BATCH + 3)]


def test_an_anomaly_beyond_all_numbers_is_still_an_anomaly() -> None:
    x = torch.tensor([[1.0], [float("inf")]])
    metrics = evaluate.reconstruction(model(Zero(), "reconstruction"), x, np.array([0, 1]), 2.0, never)
    assert (metrics.loss, metrics.accuracy, metrics.roc_auc) == (1.0, 1.0, 1.0)


def test_a_loss_that_is_no_number_is_an_error() -> None:
    nan = torch.tensor([[float("nan"), 0.0]])
    with pytest.raises(DataError, match="'test': the loss on the test rows is nan"):
        evaluate.classification(model(Same(), "classification"), nan, np.array([0]), never)
    with pytest.raises(DataError, match="'test': the largest error on the training rows is inf"):
        evaluate.threshold(model(Same(), "reconstruction"), nan, 0.9, never)


def test_evaluation_stops_between_batches() -> None:
    with pytest.raises(Interrupted):
        evaluate.classification(model(Same(), "classification"), torch.eye(2), np.arange(2), lambda: True)
