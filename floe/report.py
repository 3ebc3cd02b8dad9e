"""What a device says about its data and its model: counts and metrics, sealed inside a manifest (`Core.meta`)."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

Real = Annotated[float, Meta(ge=-1e300, le=1e300)]  # the bounds keep infinities and NaN out
Positive = Annotated[float, Meta(ge=0, le=1e300)]
Share = Annotated[float, Meta(ge=0, le=1)]
Rows = Annotated[int, Meta(ge=0, le=2**53 - 1)]


class Metrics(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model on test data: mean loss, share of right answers, area under the ROC curve.

    `roc_auc` is None where it has no meaning: more than two classes, or only one of them in the test data.
    """

    loss: Real
    accuracy: Share
    roc_auc: Share | None = None


class Privacy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """(epsilon, delta)-differential privacy of one example, as `accountant` composes it over all rounds so far."""

    epsilon: Positive
    delta: Share
    accountant: Annotated[str, Meta(max_length=64)]


class Report(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One phase on one device.

    `samples` are the rows trained on (the weight of FedAvg, n_k in McMahan et al. 2017, Algorithm 1), `test_samples`
    the rows evaluated on. `before` is the model as it came, `after` the model after local training. `threshold` is
    the reconstruction error above which an example counts as an anomaly. `seconds` is the time of the work.
    `histogram` counts the training rows by their reconstruction error, for a federated threshold. `privacy` is what
    the device has spent of an example's privacy, this phase included.
    `failure` says why the device could not do its part; then everything else is empty.
    """

    samples: Rows = 0
    test_samples: Rows = 0
    before: Metrics | None = None
    after: Metrics | None = None
    train_loss: Real | None = None
    threshold: Positive | None = None
    histogram: Annotated[tuple[Rows, ...], Meta(max_length=1024)] = ()
    privacy: Privacy | None = None
    seconds: Positive = 0.0
    failure: Annotated[str, Meta(max_length=500)] = ""
