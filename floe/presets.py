"""The training plan for each data set of the demo. Data only.

Chosen with `tests/bench/learning.py` and like runs on seeds 100 to 105; the figures that are reported are of seeds
0 to 4. breast-cancer: widths, rates and epochs compared by the ROC-AUC of the federated model on the devices' test
rows. digits: rates, momentum and epochs by accuracy after 20 rounds, Dirichlet(0.5).
"""

from __future__ import annotations

from floe.plan import Plan

_CNN = Plan(model="cnn", scaling="none", optimizer="sgd", momentum=0.9, learning_rate=0.05, epochs=5, batch_size=16)

PRESETS: dict[str, Plan] = {
    "breast-cancer": Plan(model="autoencoder", hidden=(24,), learning_rate=0.01, epochs=5, batch_size=16),
    "digits": _CNN,
    "synthetic": Plan(model="autoencoder", hidden=(4,), learning_rate=0.01, epochs=5, batch_size=32),
}
