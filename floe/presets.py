"""The training plan for each data set of the demo. Data only: imports neither torch nor the data.

Chosen on seeds 100 to 111 (`tests/bench/learning.py --first 100`, and shorter runs for synthetic, mnist and cifar10);
the figures that are reported are of seeds 0 to 4. breast-cancer: width, rate and epochs by the mean ROC-AUC of the
federated model on the devices' test rows. digits: rate and epochs by accuracy after 20 rounds of 5 devices,
Dirichlet(0.5). mnist and cifar10 take more time per epoch, hence fewer epochs.
"""

from __future__ import annotations

from floe.plan import Plan

PRESETS: dict[str, Plan] = {
    "breast-cancer": Plan(model="autoencoder", hidden=(24,), learning_rate=0.01, epochs=5, batch_size=16),
    "synthetic": Plan(model="autoencoder", hidden=(4,), learning_rate=0.01, epochs=5, batch_size=32),
    "digits": Plan(
        model="cnn", scaling="none", optimizer="sgd", momentum=0.9, learning_rate=0.05, epochs=2, batch_size=16
    ),
    "mnist": Plan(
        model="cnn", scaling="none", optimizer="sgd", momentum=0.9, learning_rate=0.05, epochs=1, batch_size=32
    ),
    "cifar10": Plan(
        model="cnn", scaling="none", optimizer="sgd", momentum=0.9, learning_rate=0.02, epochs=2, batch_size=32
    ),
}
