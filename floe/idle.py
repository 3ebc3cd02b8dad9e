"""What a plan sets and does not use: notes for a person, no faults. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from floe.plan import Plan

ADAPTIVE = ("fedadam", "fedyogi", "fedadagrad")
OPTIMIZERS = ("fedavgm", *ADAPTIVE)

# A key, whether it counts in a plan, and with what it does.
COUNTS: tuple[tuple[str, Callable[[Plan], bool], str], ...] = (
    ("hidden", lambda p: p.model not in ("cnn", "linear"), "model = autoencoder, mlp, or your own"),
    ("momentum", lambda p: p.optimizer == "sgd", "optimizer = sgd"),
    ("min_rows", lambda p: p.scaling == "standard" or p.threshold == "federated", "scaling = standard"),
    ("server_learning_rate", lambda p: p.rule in OPTIMIZERS, f"rule = {', '.join(OPTIMIZERS)}"),
    ("server_momentum", lambda p: p.rule in OPTIMIZERS, f"rule = {', '.join(OPTIMIZERS)}"),
    ("server_beta2", lambda p: p.rule in ("fedadam", "fedyogi"), "rule = fedadam, fedyogi"),
    ("server_tau", lambda p: p.rule in ADAPTIVE, f"rule = {', '.join(ADAPTIVE)}"),
    ("clip_norm", lambda p: p.rule == "norm-clipping" or p.privacy == "device", "rule = norm-clipping"),
    ("clip_quantile", lambda p: p.privacy == "device", "privacy = device"),
    ("max_grad_norm", lambda p: p.privacy == "example", "privacy = example"),
    ("delta", lambda p: p.privacy != "none", "privacy"),
    ("privacy_rounds", lambda p: p.privacy != "none" and not p.noise_multiplier, "privacy, where the noise follows"),
    ("upload", lambda p: p.report == "weights", "report = weights"),
    ("download", lambda p: p.report == "weights", "report = weights"),
)


def notes(plan: Plan) -> Iterator[str]:
    """Each in a sentence that names the key."""
    for key, counts, where in COUNTS:
        if (value := getattr(plan, key)) != getattr(Plan(), key) and not counts(plan):
            yield f"{key} = {value} counts for nothing here; it is for {where}"
