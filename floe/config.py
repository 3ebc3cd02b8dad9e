"""floe.toml, environment and flags -> one frozen `Config`.

A flag overrides the environment, the environment overrides the file, the file overrides the default.
The sections below are the whole reference: `floe init` writes it out, and every message about a bad value is
made from it, naming the source, the key, the value and what is allowed.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from floe.errors import ConfigError
from floe.messages import Name, Suite
from floe.plan import Plan
from floe.seal import sealed_length
from floe.transfer import chunk_bytes_for

FILE = "floe.toml"
MB = 1_000_000
HEADER_BYTES = 512  # of a PUBLISH, at most: fixed header 5, topic 270, packet id 2, MQTT 5 properties 1


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One table of floe.toml."""


class Federation(Section, frozen=True):
    """Who belongs together."""

    name: Annotated[Name, Meta(description="the federation: first level of every topic below floe/")] = "floe"


class Mqtt(Section, frozen=True):
    """The broker, as a client of it sees it."""

    host: Annotated[str, Meta(min_length=1, description="address of the broker")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=65535, description="TCP port of the broker")] = 1883
    username: Annotated[str, Meta(description="login; empty: anonymous")] = ""
    password: Annotated[str, Meta(description="password; better given as FLOE_MQTT_PASSWORD than in the file")] = ""
    keepalive_s: Annotated[int, Meta(ge=5, le=3600, description="MQTT keep alive, seconds")] = 30
    connect_timeout_s: Annotated[
        float,
        Meta(ge=0, description="give up when no broker answered for so many seconds; 0: keep trying"),
    ] = 30.0


class Security(Section, frozen=True):
    """What is sealed, and with what."""

    suite: Annotated[
        Suite, Meta(description="how chunks are sealed; without a secret.key: plaintext, with a warning")
    ] = "chacha20-poly1305"
    max_transfer_mb: Annotated[int, Meta(ge=1, le=100_000, description="largest update or model accepted, in MB")] = (
        1024
    )
    secret_key: Annotated[str, Meta(description="the shared key (`floe key new`), looked for beside floe.toml")] = (
        "secret.key"
    )


class Paths(Section, frozen=True):
    """Where things are kept; relative to floe.toml's folder, or to the working directory without one."""

    state: Annotated[str, Meta(description="keys, outbox, spool: what must survive a restart")] = "state"
    models: Annotated[str, Meta(description="models, readable: <id>.safetensors, global/<round>")] = "models"
    log: Annotated[str, Meta(description="folder of floe.sqlite and updates.csv")] = "log"


class Rounds(Section, frozen=True):
    """How the aggregator runs its rounds."""

    lineage: Annotated[Name, Meta(description="name of this aggregator's chain of models")] = "main"
    count: Annotated[int, Meta(ge=1, le=1_000_000, description="training rounds to run")] = 10
    devices: Annotated[int, Meta(ge=1, le=1_000_000, description="start when so many devices are online")] = 2
    quorum: Annotated[
        int,
        Meta(ge=0, le=1_000_000, description="updates that a round needs; 0: from every participant"),
    ] = 0
    deadline_s: Annotated[
        float,
        Meta(gt=0, le=1e7, description="a round with its quorum closes after so many seconds"),
    ] = 600.0
    fraction: Annotated[float, Meta(gt=0, le=1, description="share of the devices that takes part in a round")] = 1.0
    members: Annotated[tuple[Name, ...], Meta(description="device ids that may take part; empty: all")] = ()
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
    threads: Annotated[int, Meta(ge=0, le=1024, description="threads for training; 0: as torch chooses")] = 0


class Broker(Section, frozen=True):
    """The Mosquitto that `floe broker` starts."""

    bind: Annotated[str, Meta(min_length=1, description="address to listen on")] = "127.0.0.1"
    mosquitto: Annotated[str, Meta(min_length=1, description="the mosquitto program")] = "mosquitto"
    max_payload_mb: Annotated[
        int, Meta(ge=1, le=256, description="largest MQTT packet, in MB; the same on bridged brokers")
    ] = 2


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
    models: dict[str, str] = {}
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
}
ALIASES = {
    "models": 'your own models: mine = "package.module:function", called with (shape, classes, plan)',
    "data": 'your own data: mine = "package.module:function", which returns edge_client.data Features',
}


def load(
    flags: Mapping[str, tuple[str, str]] | None = None,
    environ: Mapping[str, str] | None = None,
    file: str | Path | None = None,
) -> Config:
    """Read the configuration.

    `flags` maps "section.key" to the flag that sets it and its text: ("--rounds", "10"). `file` must exist when it is
    named, by FLOE_CONFIG too; otherwise `floe.toml` of the working directory is read if it is there. What a stronger
    source overrides is checked all the same. Raises `ConfigError`.
    """
    environ = os.environ if environ is None else environ
    named = file or environ.get("FLOE_CONFIG")
    path = Path(named or FILE)
    there = os.path.lexists(path)
    if named and not there:
        raise ConfigError(f"{path}: no such file; `floe init` writes one")
    table = _read(path) if there else {}
    values: dict[str, Any] = {
        section: _section(section, struct, table.get(section, {}), path, environ, flags or {})
        for section, struct in SECTIONS.items()
    }
    for section in ALIASES:
        values[section] = _aliases(section, table.get(section, {}), path)
    _no_unknown_variables(environ)
    read = path.absolute() if there else None
    config = Config(**values, folder=read.parent if read else Path.cwd(), file=read)
    _chunks_fit_into_packets(config)
    return config


def variable(section: str, key: str) -> str:
    """The environment variable of a key: rounds.deadline_s -> FLOE_ROUNDS_DEADLINE_S."""
    return f"FLOE_{section}_{key}".upper()


def describe(section: str, key: str) -> tuple[str, str, Any]:
    """What a key means, what is allowed, and its default."""
    struct = SECTIONS[section]
    hint = get_type_hints(struct, include_extras=True)[key]
    metas = [meta for meta in _metas(hint) if meta.description]
    field = next(f for f in msgspec.structs.fields(struct) if f.name == key)
    return (metas[-1].description or "" if metas else ""), allowed(hint), field.default


def allowed(hint: Any) -> str:
    """A type and its limits in words, for messages and for the commented file."""
    kind = _bare(hint)
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
    words = {str: "text", int: "whole number", float: "number"}[kind]
    return f"{words} {' and '.join(limits)}" if limits else words


def _read(path: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # editors on Windows begin with a byte order mark
    except OSError as error:
        link = f" (a link to {path.readlink()})" if path.is_symlink() else ""
        raise ConfigError(f"{path}{link}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None
    known = [*SECTIONS, *ALIASES]
    for section, content in table.items():
        if section not in known:
            raise ConfigError(f"{path}: unknown section [{section}]; known: {', '.join(known)}")
        if not isinstance(content, dict):
            raise ConfigError(f"{path}: {section} = {content!r}: [{section}] is a section")
    return table


def _section(
    section: str,
    struct: type[msgspec.Struct],
    table: Mapping[str, Any],
    path: Path,
    environ: Mapping[str, str],
    flags: Mapping[str, tuple[str, str]],
) -> Any:
    hints = get_type_hints(struct, include_extras=True)
    for key in table:
        if key not in hints:
            raise ConfigError(f"{path}: unknown key {key!r} in [{section}]; known: {', '.join(hints)}")
    values = {}
    for key, hint in hints.items():
        if key in table:
            values[key] = _convert(table[key], hint, f"{path}: [{section}] {key}", from_text=False)
        if (name := variable(section, key)) in environ:
            values[key] = _convert(environ[name], hint, f"environment {name}", from_text=True)
        if f"{section}.{key}" in flags:
            flag, text = flags[f"{section}.{key}"]
            values[key] = _convert(text, hint, flag, from_text=True)
    return struct(**values)


def _convert(value: Any, hint: Any, place: str, *, from_text: bool) -> Any:
    given = value
    if from_text and get_origin(_bare(hint)) is tuple:
        value = [part.strip() for part in value.split(",") if part.strip()]
    try:
        return msgspec.convert(value, hint, strict=not from_text)
    except msgspec.ValidationError:
        raise ConfigError(f"{place} = {given!r}: allowed is {allowed(hint)}") from None


def _aliases(section: str, table: Mapping[str, Any], path: Path) -> dict[str, str]:
    for alias, target in table.items():
        if not isinstance(target, str) or target.count(":") != 1:
            raise ConfigError(f'{path}: [{section}] {alias} = {target!r}: allowed is "package.module:function"')
    return dict(table)


def _chunks_fit_into_packets(config: Config) -> None:
    largest, packet = config.security.max_transfer_mb, config.broker.max_payload_mb
    chunk = min(chunk_bytes_for(largest * MB), largest * MB)
    needed = sealed_length(config.security.suite, chunk) + HEADER_BYTES
    if needed > packet * MB:
        raise ConfigError(
            f"[security] max_transfer_mb = {largest} makes packets of up to {needed} bytes ({config.security.suite}), "
            f"[broker] max_payload_mb = {packet} lets none through above {packet * MB}: lower the first, or raise the "
            f"second to {-(-needed // MB)}, at the broker too"
        )


def _no_unknown_variables(environ: Mapping[str, str]) -> None:
    known = {variable(s, k) for s, struct in SECTIONS.items() for k in struct.__struct_fields__}
    known |= {"FLOE_CONFIG", "FLOE_DATA"}
    for name in environ:
        if name.startswith("FLOE_") and name not in known:
            raise ConfigError(f"environment {name}: unknown; `floe init --print` lists all keys")


def _bare(hint: Any) -> Any:
    while get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    return hint


def _metas(hint: Any) -> list[Meta]:
    found: list[Meta] = []
    while get_origin(hint) is Annotated:
        found += [extra for extra in get_args(hint)[1:] if isinstance(extra, Meta)]
        hint = get_args(hint)[0]
    return found
