"""The training plan: what every device does in a round. Part of the round document and of floe.toml.

A plan names models, data and rules by alias; what an alias means is local configuration, so nothing on the wire
names code.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Alias = Annotated[str, Meta(pattern=r"\A[a-z0-9_-]{1,64}\Z")]


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a device does with its data; the same for every device of a round."""

    model: Annotated[
        Alias,
        Meta(description="model by alias: autoencoder, cnn, linear, mlp, or one from [models] of each device"),
    ] = "autoencoder"
    hidden: Annotated[
        tuple[Annotated[int, Meta(ge=1, le=65536)], ...],
        Meta(
            max_length=16,
            description="widths of the hidden layers of autoencoder and mlp; empty: the model's own",
        ),
    ] = ()
    report: Annotated[
        Literal["weights", "accuracy"],
        Meta(description="weights: devices send weights and metrics; accuracy: no weights leave a device"),
    ] = "weights"
    epochs: Annotated[int, Meta(ge=1, le=10_000, description="local epochs E in a round")] = 5
    batch_size: Annotated[
        int, Meta(ge=0, le=1_000_000, description="local batch size B; 0 is the whole data (FedSGD)")
    ] = 32
    learning_rate: Annotated[float, Meta(gt=0, le=1000, description="local learning rate")] = 0.001
    optimizer: Annotated[Literal["sgd", "adam"], Meta(description="local optimizer, fresh in every round")] = "adam"
    momentum: Annotated[float, Meta(ge=0, lt=1, description="momentum of sgd")] = 0.0
    weight_decay: Annotated[float, Meta(ge=0, le=10, description="L2 penalty of the optimizer")] = 0.0
    mu: Annotated[
        float,
        Meta(ge=0, le=1e6, description="FedProx' proximal term (Li et al. 2020); 0 is FedAvg"),
    ] = 0.0
    scaling: Annotated[
        Literal["standard", "none"],
        Meta(description="standard: federated mean and deviation of every feature; none: as given"),
    ] = "standard"
    threshold_quantile: Annotated[
        float,
        Meta(gt=0, lt=1, description="the threshold is this quantile of the training errors"),
    ] = 0.95
    min_rows: Annotated[int, Meta(ge=1, le=10**9, description="a device with fewer training rows sends no sums")] = 10
    seed: Annotated[int, Meta(ge=0, le=2**31, description="seed of initial weights and shuffling")] = 0
