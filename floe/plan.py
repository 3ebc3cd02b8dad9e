"""The training plan: what every device does in a round. Part of the round document and of floe.toml.

A plan names models, data and rules by alias; what an alias means is local configuration, so nothing on the wire
names code.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Rule = Literal[
    "fedavg",
    "fedavgm",
    "fedadam",
    "fedyogi",
    "fedadagrad",
    "median",
    "trimmed-mean",
    "krum",
    "multi-krum",
    "norm-clipping",
]
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
        Literal["standard", "local", "none"],
        Meta(
            description="standard: federated mean and deviation of every feature; local: the device's; none: as given"
        ),
    ] = "standard"
    threshold_quantile: Annotated[
        float,
        Meta(gt=0, lt=1, description="the threshold is this quantile of the training errors"),
    ] = 0.95
    threshold: Annotated[
        Literal["local", "federated"],
        Meta(description="local: each device has its own; federated: one for all, agreed from histograms of errors"),
    ] = "local"
    min_rows: Annotated[
        int, Meta(ge=1, le=10**9, description="a device with fewer training rows sends no sums and no histogram")
    ] = 10
    seed: Annotated[int, Meta(ge=0, le=2**31, description="seed of initial weights and shuffling")] = 0

    rule: Annotated[
        Rule,
        Meta(description="how updates become a model; FedProx: any with mu; FedAsync, FedBuff: see rounds.mode, late"),
    ] = "fedavg"
    server_learning_rate: Annotated[
        float, Meta(gt=0, le=1000, description="step of the aggregator: fedavgm, fedadam, fedyogi, fedadagrad")
    ] = 1.0
    server_momentum: Annotated[
        float, Meta(ge=0, lt=1, description="momentum of fedavgm; beta 1 of fedadam, fedyogi, fedadagrad")
    ] = 0.9
    server_beta2: Annotated[float, Meta(ge=0, lt=1, description="beta 2 of fedadam and fedyogi")] = 0.99
    server_tau: Annotated[float, Meta(gt=0, le=1, description="adaptivity of fedadam, fedyogi, fedadagrad")] = 0.001
    byzantine: Annotated[
        int, Meta(ge=0, le=100_000, description="f: devices that may lie, for trimmed-mean, krum, multi-krum")
    ] = 0
    keep: Annotated[int, Meta(ge=0, le=100_000, description="updates that multi-krum averages; 0: all but f")] = 0
    clip_norm: Annotated[
        float,
        Meta(
            gt=0, le=1e9, description="norm that an update is cut to: norm-clipping, privacy = device (there the first)"
        ),
    ] = 1.0

    personal: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=256)], ...],
        Meta(max_length=64, description='layers that never leave a device, by name pattern: ["conv1.*", "*bn*"]'),
    ] = ()
    schema: Annotated[
        Literal["shared", "own"],
        Meta(description="own: devices' features may differ; then the layers that hang on them are personal"),
    ] = "shared"

    privacy: Annotated[
        Literal["none", "example", "device"],
        Meta(description="differential privacy: of an example (DP-SGD, on devices), of a device (DP-FedAvg)"),
    ] = "none"
    noise_multiplier: Annotated[
        float, Meta(ge=0, le=1000, description="noise over clipping norm; 0: from epsilon and privacy_rounds")
    ] = 0.0
    epsilon: Annotated[
        float, Meta(ge=0, le=1e6, description="budget: training that would exceed it is refused; 0: none")
    ] = 0.0
    delta: Annotated[float, Meta(gt=0, lt=1, description="delta of the budget; well below 1 / rows (or devices)")] = (
        1e-5
    )
    privacy_rounds: Annotated[
        int, Meta(ge=0, le=1_000_000, description="rounds that epsilon shall last, where the noise follows from it")
    ] = 0
    max_grad_norm: Annotated[
        float, Meta(gt=0, le=1e9, description="norm that an example's gradient is cut to, with privacy = example")
    ] = 1.0
    clip_quantile: Annotated[
        float,
        Meta(
            ge=0,
            lt=1,
            description="quantile of the updates' norms that clip_norm follows, with privacy = device; 0: fixed",
        ),
    ] = 0.0

    upload: Annotated[
        Literal["weights", "float32", "float16", "int8"],
        Meta(
            description="updates as weights, or as differences to the base, added in float32: "
            "float32, float16, 8 bits; then zstd"
        ),
    ] = "weights"
    download: Annotated[
        Literal["float32", "float16"], Meta(description="what the global model is rounded to before it is published")
    ] = "float32"
