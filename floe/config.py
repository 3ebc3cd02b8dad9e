"""floe.toml, environment and flags -> one frozen `Config`.

A flag overrides the environment, the environment overrides the file, the file overrides the default.
What can be set is in `floe.settings`; a message about a bad value names the source, the key, the value and what is
allowed.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import msgspec

from floe.errors import ConfigError
from floe.seal import sealed_length
from floe.settings import ALIASES, SECTIONS, Config, allowed, bare
from floe.transfer import chunk_bytes_for

FILE = "floe.toml"
MB = 1_000_000
SHOWN = 80
HEADER_BYTES = 512  # of a PUBLISH, at most: fixed header 5, topic 270, packet id 2, MQTT 5 properties 1


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


def value_of(section: str, key: str, text: str, place: str) -> Any:
    """The value of a key that is given as text. Raises `ConfigError`, which names the place and what is allowed."""
    hints = get_type_hints(SECTIONS[section], include_extras=True)
    _check_known(section, key, hints, place)
    return convert(text, hints[key], place, from_text=True)


def variable(section: str, key: str) -> str:
    """The environment variable of a key: rounds.deadline_s -> FLOE_ROUNDS_DEADLINE_S."""
    return f"FLOE_{section}_{key}".upper()


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
            raise ConfigError(f"{path}: {section} = {short(content)}: [{section}] is a section")
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
        _check_known(section, key, hints, str(path))
    values = {}
    for key, hint in hints.items():
        if key in table:
            values[key] = convert(table[key], hint, f"{path}: [{section}] {key}", from_text=False)
        if (name := variable(section, key)) in environ:
            values[key] = convert(environ[name], hint, f"environment {name}", from_text=True)
        if f"{section}.{key}" in flags:
            flag, text = flags[f"{section}.{key}"]
            values[key] = convert(text, hint, flag, from_text=True)
    return struct(**values)


def _check_known(section: str, key: str, hints: Mapping[str, Any], place: str) -> None:
    if key not in hints:
        raise ConfigError(f"{place}: unknown key {short(key)} in [{section}]; known: {', '.join(hints)}")


def convert(value: Any, hint: Any, place: str, *, from_text: bool) -> Any:
    """A value as a key takes it. Raises `ConfigError` with the place, the value and what is allowed."""
    given = value
    if from_text and get_origin(bare(hint)) is tuple:
        value = [part.strip() for part in value.split(",") if part.strip()]
    try:
        return msgspec.convert(value, hint, strict=not from_text)
    except msgspec.ValidationError:
        raise ConfigError(f"{place} = {short(given)}: allowed is {allowed(hint)}") from None


def short(value: Any) -> str:
    """A value for a message, at most `SHOWN` characters of it."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def _aliases(section: str, table: Mapping[str, Any], path: Path) -> dict[str, str]:
    for alias, target in table.items():
        if not isinstance(target, str) or target.count(":") != 1:
            raise ConfigError(f'{path}: [{section}] {alias} = {short(target)}: allowed is "package.module:function"')
    return dict(table)


def _chunks_fit_into_packets(config: Config) -> None:
    largest, packet = config.security.max_transfer_mb, config.broker.max_payload_mb
    chunk = min(chunk_bytes_for(largest * MB), largest * MB)
    suite = config.security.suite
    needed = (
        sealed_length("aes-256-gcm" if suite == "auto" else suite, chunk) + HEADER_BYTES
    )  # either AEAD adds as much
    if needed > packet * MB:
        raise ConfigError(
            f"[security] max_transfer_mb = {largest} makes packets of up to {needed} bytes ({suite}), "
            f"[broker] max_payload_mb = {packet} lets none through above {packet * MB}: lower the first, or raise the "
            f"second to {-(-needed // MB)}, at the broker too"
        )


def _no_unknown_variables(environ: Mapping[str, str]) -> None:
    known = {variable(s, k) for s, struct in SECTIONS.items() for k in struct.__struct_fields__}
    known |= {"FLOE_CONFIG", "FLOE_DATA"}
    for name in environ:
        if name.startswith("FLOE_") and name not in known:
            raise ConfigError(f"environment {name}: unknown; `floe init --print` lists all keys")
