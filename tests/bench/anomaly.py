"""What an anomaly detector's errors say of it, and the tables of stored runs. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_client.evaluate import roc_auc
from floe import threshold

MODES = {
    "pca": "pca",
    "local": "local",
    "alone": "local, settings of its own",
    "federated": "federated",
    "personal": "federated, output layer personal",
    "own": "federated, then 5 epochs at home",
    "central": "central",
}  # how the tables call the ways of training
COMPARED = ("local", "federated", "personal")  # by both thresholds, for every device
HEADS = ("ROC-AUC", "FPR at TPR 0.99", "FPR", "TPR", "FPR, common threshold", "TPR, common threshold")
MEASURES = ("auc", "fpr_at_tpr99", "fpr", "tpr", "fpr_federated", "tpr_federated")

Errors = npt.NDArray[np.float64]
Line = dict[str, Any]


def judged(
    every: Mapping[str, tuple[Errors, Errors]], attacks: Mapping[str, npt.NDArray[np.bool_]], quantile: float
) -> dict[str, dict[str, float]]:
    """What each device's errors say, with its own threshold and with the one that all agree on."""
    common = agreed([train for train, _ in every.values()], quantile)
    return {
        name: measures(test, attacks[name], float(np.quantile(train, quantile)), common)
        for name, (train, test) in every.items()
    }


def agreed(training: Sequence[Errors], quantile: float) -> float:
    """The threshold of `threshold = "federated"`: a quantile of the histograms of all devices' training errors."""
    return threshold.quantile(threshold.merged([threshold.histogram(errors) for errors in training]), quantile)


def measures(test: Errors, attack: npt.NDArray[np.bool_], own: float, common: float) -> dict[str, float]:
    """ROC-AUC, the false positive rate where 99 % of the attacks are found, both rates at the two thresholds."""
    auc = roc_auc(attack, test)
    assert auc is not None
    benign, attacks = test[~attack], np.sort(test[attack])
    found_99 = attacks[len(attacks) // 100]  # at most 1 % of the attacks lie below
    return {
        "auc": auc,
        "fpr_at_tpr99": float((benign >= found_99).mean()),
        "fpr": float((benign > own).mean()),
        "tpr": float((attacks > own).mean()),
        "fpr_federated": float((benign > common).mean()),
        "tpr_federated": float((attacks > common).mean()),
    }


def table(lines: Sequence[Line]) -> str:
    """Markdown: every measure for each way of training and seed, then the measures of each device over the seeds."""
    seeds = sorted({line["seed"] for line in lines})
    overall = [["training", "seed", *HEADS]]
    for mode, label in MODES.items():
        by_seed = {seed: means(lines, mode=mode, seed=seed) for seed in seeds}
        overall += [[label, str(seed), *map(_figure, row)] for seed, row in by_seed.items() if mode != "pca"]
        overall.append([f"**{label}**", "mean", *map(_figure, np.mean(list(by_seed.values()), axis=0))])
    found = {
        name: {mode: means(lines, mode=mode, device=name) for mode in MODES}
        for name in sorted({line["device"] for line in lines})
    }
    by_device = [["device", *(f"{label}: {head}" for label in MODES.values() for head in HEADS[:2])]]
    by_device += [[name, *(_figure(value) for mode in MODES for value in row[mode][:2])] for name, row in found.items()]
    thresholds = [["device", *(f"{MODES[mode]}: {head}" for mode in COMPARED for head in HEADS[2:])]]
    for name, row in found.items():
        thresholds.append([name, *(_figure(value) for mode in COMPARED for value in row[mode][2:])])
    return "\n\n".join(map(markdown, (overall, by_device, thresholds))) + "\n"


def means(lines: Sequence[Line], **where: Any) -> list[float]:
    found = [line for line in lines if all(line[key] == value for key, value in where.items())]
    return [statistics.fmean(line[key] for line in found) for key in MEASURES]


def _figure(value: float) -> str:
    return f"{value:.4f}"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])
