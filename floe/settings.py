"""What can be set: the tables of floe.toml as frozen structs, and each key's meaning and limits in words.

This is the whole reference: `floe init` writes it out, and `floe.config` makes every message about a bad value from it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from floe.messages import Name, Suite
from floe.plan import Plan
from floe.signing import Algorithm

Login = Literal["shared", "passwords", "certificates"]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One table of floe.toml."""


class Federation(Section, frozen=True):
    """Who belongs together."""

    name: Annotated[Name, Meta(description="the federation: first level of every topic below floe/")] = "floe"


class Mqtt(Section, frozen=True):
    """The broker, as a client of it sees it."""

    host: Annotated[str, Meta(min_length=1, description="address of the broker")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=65535, description="TCP port of the broker")] = 1883
    tls: Annotated[bool, Meta(description="speak TLS to the broker, and check its certificate")] = False
    lobby_port: Annotated[
        int,
        Meta(ge=0, le=65535, description="TCP port at which those without a login may ask to join; 0: none"),
    ] = 0
    login: Annotated[
        Login, Meta(description="how all log in: shared: as username (empty: as nobody); else each as itself")
    ] = "shared"
    username: Annotated[str, Meta(description="login that all share; empty: anonymous")] = ""
    password: Annotated[str, Meta(description="password; better given as FLOE_MQTT_PASSWORD than in the file")] = ""
    keepalive_s: Annotated[int, Meta(ge=5, le=3600, description="MQTT keep alive, seconds")] = 30
    connect_timeout_s: Annotated[
        float,
        Meta(ge=0, description="give up when no broker answered for so many seconds; 0: keep trying"),
    ] = 30.0


class Security(Section, frozen=True):
    """What is sealed, and with what."""

    suite: Annotated[
        Literal["auto", Suite],
        Meta(
            description="how chunks are sealed; auto: on a device aes-256-gcm if its processor has AES instructions, "
            "else chacha20-poly1305; without a secret.key: plaintext, with a warning"
        ),
    ] = "auto"
    signatures: Annotated[
        Algorithm, Meta(description="what a device signs with, used when its key is made; the key tells afterwards")
    ] = "ed25519"
    max_transfer_mb: Annotated[int, Meta(ge=1, le=100_000, description="largest update or model accepted, in MB")] = (
        1024
    )
    secret_key: Annotated[str, Meta(description="the shared key (`floe key new`), looked for beside floe.toml")] = (
        "secret.key"
    )
    federation: Annotated[
        str, Meta(description="name and root key of the federation (`floe federation new`, `floe join`): devices enrol")
    ] = "federation.pub"
    operator_key: Annotated[
        str, Meta(description="signs the commands of `floe round` (`floe key operator`); only where they are given")
    ] = "operator.pem"
    operators: Annotated[
        str, Meta(description="without enrolment: the operators that the aggregator obeys, one `name key` a line")
    ] = "operators.pub"
    access: Annotated[
        str, Meta(description="folder of what aggregator, broker and operators log in with, and the authority's key")
    ] = "access"
    delegation: Annotated[
        str, Meta(description="the root's word for the operators (`floe federation delegate`), beside operator.pem")
    ] = "operators.delegation"


class Paths(Section, frozen=True):
    """Where things are kept; relative to floe.toml's folder, or to the working directory without one."""

    state: Annotated[str, Meta(description="keys, outbox, spool: what must survive a restart")] = "state"
    models: Annotated[str, Meta(description="models, readable: <id>.safetensors, global/<round>")] = "models"
    log: Annotated[str, Meta(description="folder of floe.sqlite and updates.csv")] = "log"


class Rounds(Section, frozen=True):
    """How the aggregator runs its rounds."""

    lineage: Annotated[Name, Meta(description="name of this aggregator's chain of models")] = "main"
    mode: Annotated[
        Literal["rounds", "asynchronous"],
        Meta(description="asynchronous: every update makes the next model at once, and counts as a round (FedAsync)"),
    ] = "rounds"
    count: Annotated[int, Meta(ge=1, le=1_000_000, description="training rounds to run")] = 10
    devices: Annotated[int, Meta(ge=1, le=1_000_000, description="start when so many devices are online")] = 2
    members: Annotated[tuple[Name, ...], Meta(description="device ids that may take part; empty: all")] = ()
    fraction: Annotated[float, Meta(gt=0, le=1, description="share of the devices that takes part in a round")] = 1.0
    quorum: Annotated[
        int,
        Meta(ge=0, le=1_000_000, description="updates that a round needs; 0: from every participant that is online"),
    ] = 0
    grace_s: Annotated[
        float,
        Meta(ge=0, le=1e7, description="a round that has its quorum waits so many seconds for the others"),
    ] = 30.0
    deadline_s: Annotated[
        float, Meta(gt=0, le=1e7, description="no round waits longer than so many seconds for its quorum")
    ] = 600.0
    below_quorum: Annotated[
        Literal["extend", "void"],
        Meta(description="at the deadline, below the quorum: extend the round, or close it without a model"),
    ] = "extend"
    late: Annotated[
        Literal["drop", "merge"],
        Meta(description="updates that come after their round: drop, or merge into the open one, weighted down"),
    ] = "drop"
    max_staleness: Annotated[
        int,
        Meta(ge=1, le=1000, description="how many rounds late an update may be to be merged; asynchronously any"),
    ] = 10
    staleness_power: Annotated[
        float, Meta(ge=0, le=10, description="a: an update that is s rounds behind counts (1 + s)^-a")
    ] = 0.5
    mixing: Annotated[
        float, Meta(gt=0, le=1, description="asynchronous: share of an update that is not behind in the next model")
    ] = 0.6
    pause_s: Annotated[float, Meta(ge=0, le=1e7, description="seconds between two rounds")] = 0.0
    metric: Annotated[
        Literal["accuracy", "loss", "roc_auc"],
        Meta(description="metric of the global model that target and patience use"),
    ] = "accuracy"
    target: Annotated[float, Meta(ge=0, le=1e9, description="stop when the metric has reached this; 0: no target")] = (
        0.0
    )
    patience: Annotated[
        int,
        Meta(ge=0, le=1_000_000, description="stop after so many rounds in which the metric got no better; 0: never"),
    ] = 0
    uploads: Annotated[int, Meta(ge=1, le=1000, description="devices that upload at the same time")] = 4
    initial: Annotated[
        str, Meta(description="global model to begin with (.safetensors); empty: the first device's")
    ] = ""


class Device(Section, frozen=True):
    """One edge device."""

    id: Annotated[str, Meta(description="name of this device: [a-z0-9_-]{1,64}")] = ""
    data: Annotated[
        str, Meta(description="folder with train_x.npy ..., an .npy/.npz file, or an alias from [data]")
    ] = ""
    report: Annotated[
        Literal["weights", "accuracy"],
        Meta(description="accuracy: weights never leave this device, whatever the plan says"),
    ] = "weights"
    epsilon: Annotated[
        float,
        Meta(ge=0, le=1e6, description="most that this device spends of an example's privacy; 0: as the plan says"),
    ] = 0.0
    threads: Annotated[int, Meta(ge=0, le=1024, description="threads for training; 0: as torch chooses")] = 0
    telemetry_s: Annotated[
        float, Meta(ge=0, le=1e6, description="seconds between two reports of how this machine is; 0: none")
    ] = 60.0
    journal: Annotated[
        Literal["info", "warning", "none"],
        Meta(description="which lines of its own log a device reports; warning: those, and errors"),
    ] = "info"


class Broker(Section, frozen=True):
    """The Mosquitto that `floe broker` starts."""

    bind: Annotated[str, Meta(min_length=1, description="address to listen on")] = "127.0.0.1"
    mosquitto: Annotated[str, Meta(min_length=1, description="the mosquitto program")] = "mosquitto"
    max_payload_mb: Annotated[
        int, Meta(ge=1, le=256, description="largest MQTT packet, in MB; the same on bridged brokers")
    ] = 2


class Ui(Section, frozen=True):
    """The page that `floe ui` serves."""

    bind: Annotated[
        str, Meta(min_length=1, description="address of the page; beyond this machine only with a password")
    ] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="TCP port of the page; 0: one that is free")] = 8501
    password: Annotated[
        str, Meta(description="what the page asks for, hashed: the line that `floe ui --new-password` prints")
    ] = ""


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that can be set. `folder` is where relative paths start, `file` what was read."""

    federation: Federation = Federation()
    mqtt: Mqtt = Mqtt()
    security: Security = Security()
    paths: Paths = Paths()
    rounds: Rounds = Rounds()
    plan: Plan = Plan()
    device: Device = Device()
    broker: Broker = Broker()
    ui: Ui = Ui()
    models: dict[str, str] = {}
    trainers: dict[str, str] = {}
    data: dict[str, str] = {}
    folder: Path = Path()
    file: Path | None = None

    def path(self, text: str) -> Path:
        """A configured path, made absolute from the folder of floe.toml."""
        return (self.folder / Path(text).expanduser()).absolute()


SECTIONS: dict[str, type[msgspec.Struct]] = {
    "federation": Federation,
    "mqtt": Mqtt,
    "security": Security,
    "paths": Paths,
    "rounds": Rounds,
    "plan": Plan,
    "device": Device,
    "broker": Broker,
    "ui": Ui,
}
ALIASES = {
    "models": 'your own models: mine = "package.module:function", called with (shape, classes, plan)',
    "trainers": 'your own training, without torch if you like: mine = "package.module:Class", see edge_client/own.py',
    "data": 'your own data: mine = "package.module:function", which returns edge_client.data Features',
}


def describe(section: str, key: str) -> tuple[str, str, Any]:
    """What a key means, what is allowed, and its default."""
    struct = SECTIONS[section]
    hint = get_type_hints(struct, include_extras=True)[key]
    described = [meta.description for meta in _metas(hint) if meta.description]
    field = next(f for f in msgspec.structs.fields(struct) if f.name == key)
    return (described[-1] if described else ""), allowed(hint), field.default


def allowed(hint: Any) -> str:
    """A type and its limits in words, for messages and for the commented file."""
    kind = bare(hint)
    if get_origin(kind) is Literal:
        return " | ".join(map(str, get_args(kind)))
    if get_origin(kind) is tuple:
        return f"list of {allowed(get_args(kind)[0])}"
    limits: list[str] = []
    for meta in _metas(hint):
        limits += [f">= {meta.ge}"] if meta.ge is not None else []
        limits += [f"> {meta.gt}"] if meta.gt is not None else []
        limits += [f"<= {meta.le}"] if meta.le is not None else []
        limits += [f"< {meta.lt}"] if meta.lt is not None else []
        limits += [meta.pattern.replace(r"\A", "").replace(r"\Z", "")] if meta.pattern else []
        limits += ["not empty"] if meta.min_length else []
    words = {str: "text", int: "whole number", float: "number", bool: "true | false"}[kind]
    return f"{words} {' and '.join(limits)}" if limits else words


def bare(hint: Any) -> Any:
    while get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    return hint


def _metas(hint: Any) -> list[Meta]:
    found: list[Meta] = []
    while get_origin(hint) is Annotated:
        found += [extra for extra in get_args(hint)[1:] if isinstance(extra, Meta)]
        hint = get_args(hint)[0]
    return found
