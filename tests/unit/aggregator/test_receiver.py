"""What the aggregator answers to a device whose key does not count."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from helpers.wire import ANN, core

from aggregator.receiver import Receiver
from floe.errors import Refused
from floe.messages import Envelope, Manifest
from floe.topics import AnswerTo, DeviceManifest


@pytest.mark.parametrize("reason", ["unknown-key", "not-enrolled", "revoked", "roster"])
def test_who_does_not_count_is_told_so_unless_that_may_pass(reason: str, tmp_path: Path) -> None:
    def check_key(manifest: Manifest) -> None:
        raise Refused(reason, "as it is")

    wire, speakers, policy = Mock(federation="floe"), Mock(check_key=check_key), Mock()
    parts: dict[str, Any] = {"folder": tmp_path, "state": Mock(), "ended": Mock()}
    receiver = Receiver(wire, Mock(), speakers, Mock(), Mock(), policy, **parts)
    envelope = Envelope(to="main", wrap="hpke", key="")
    manifest = Manifest(federation="floe", sender="ann", key=ANN.key, proof="", seq=1, core=core(), envelope=envelope)
    with pytest.raises(Refused, match=reason):
        receiver.manifest(DeviceManifest("floe", "ann", "main", 3), manifest, b"")
    told = [call.kwargs["reason"] for call in wire.send.call_args_list if isinstance(call.args[0], AnswerTo)]
    assert told == ([] if reason == "roster" else [reason])
    parts["ended"].assert_not_called()
