"""Names that a device may have, and where others are refused before anybody is asked."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from floe.certificates import MAX_LOGIN
from floe.cli import floe
from floe.errors import ConfigError
from floe.names import MOST_WITH_CERTIFICATE, RESERVED, fault_of


def test_a_name_is_one_level_of_a_topic_and_nobody_else_s() -> None:
    assert [fault_of(name, certificate=True) for name in ("ann", "chunks", "root-1", "a" * 57)] == [""] * 4
    for name in ("", "Ann", "a b", "a/b", "+", "a" * 65, "ann\n"):
        assert (
            fault_of(name, certificate=False)
            == "a device needs a name of [a-z0-9_-]{1,64} that does not begin with a hyphen"
        )
    for name in ("root", "broker", "chunk"):
        assert "no device is called root, broker or chunk" in fault_of(name, certificate=False)


def test_with_a_certificate_a_name_is_as_long_as_its_common_name_may_be() -> None:
    longest = "a" * MOST_WITH_CERTIFICATE
    assert len(f"device.{longest}") == MAX_LOGIN
    assert fault_of(longest, certificate=True) == ""
    assert fault_of(f"{longest}a", certificate=False) == ""
    assert "58 characters, and a certificate holds 57" in fault_of(f"{longest}a", certificate=True)


@pytest.mark.parametrize("name", [*RESERVED, "a" * 58])
def test_nobody_is_invited_under_a_name_that_no_device_may_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("floe.toml").write_text('[mqtt]\ntls = true\nlobby_port = 8884\nlogin = "certificates"\n')
    result = CliRunner().invoke(floe, ["invite", "--device", name])
    assert isinstance(result.exception, ConfigError)
    assert f"--device {name!r}: {fault_of(name, certificate=True)}" == str(result.exception)
