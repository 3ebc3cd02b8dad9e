"""Floe beside Flower 1.8 on this machine: `python tests/bench/flower.py` prints a Markdown table and a JSON line.

Flower comes from its package (flwr 1.8.0, gRPC, plaintext) into an environment of its own in the folder for temporary
files, which is kept for the next time. Both run the same: clients that are processes of their own and do nothing but
add 1 to float32 numbers, FedAvg, no evaluation between rounds; Floe with everything on (sealed, signed, SQLite, through
Mosquitto). A round of Flower is the time from one `configure_fit` to the next: model down, clients, updates up, mean.
A round of Floe is what `floe bench round` measures: from its publication until every client has the next model.
The two take turns; medians, the first round dropped.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import Any

PACKAGE = "flwr==1.8.0"
CASES = ((10, 250_000, 21), (2, 2_500_000, 16), (2, 25_000_000, 7))  # clients, float32, rounds
SECONDS, PEAKS = ("flower_seconds", "floe_seconds"), ("flower_peak_mb", "floe_peak_mb")
WAIT_S = 300.0


def main() -> None:
    python, rows = environment(), []
    print("| clients x model | Flower 1.8 | Floe | Floe / Flower | memory of Flower's server | of Floe's |")
    print("|---|---|---|---|---|---|")
    for clients, params, rounds in CASES:
        flower, floe = flower_round(python, clients, params, rounds), floe_round(clients, params, rounds)
        row = {"clients": clients, "params": params, "rounds": rounds, "flower_seconds": flower["seconds"],
               "floe_seconds": floe["seconds"], "ratio": floe["seconds"] / flower["seconds"],
               "flower_peak_mb": flower["peak_mb"], "floe_peak_mb": floe["aggregator_peak_mb"]}  # fmt: skip
        rows.append(row)
        cells = [f"{clients} x {params * 4 / 1e6:g} MB", *(f"{row[name]:.3f} s" for name in SECONDS)]
        cells += [f"{row['ratio']:.2f}", *(f"{row[name]:.0f} MB" for name in PEAKS)]
        print(f"| {' | '.join(cells)} |", flush=True)
    print(json.dumps({"package": PACKAGE, "rows": rows}))


def environment() -> Path:
    """The Python of an environment that has Flower, made if need be."""
    folder = Path(tempfile.gettempdir()) / f"floe-bench-{PACKAGE.replace('==', '-')}"
    if not (folder / "ready").exists():
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([folder / "bin" / "pip", "install", "--quiet", PACKAGE], check=True)
        (folder / "ready").touch()
    return folder / "bin" / "python"


def floe_round(clients: int, params: int, rounds: int) -> dict[str, Any]:
    words = ["bench", "round", "--clients", clients, "--params", params, "--rounds", rounds, "--json"]
    done = subprocess.run([sys.executable, "-m", "floe", *map(str, words)], stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def flower_round(python: Path, clients: int, params: int, rounds: int) -> dict[str, Any]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"

    def start(*words: object, **streams: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen([python, __file__, *map(str, words)], stderr=subprocess.DEVNULL, **streams)

    server = start("server", address, clients, params, rounds, stdout=subprocess.PIPE)
    _await(address)  # a client that comes before its server dies
    others = [start("client", address) for _ in range(clients)]
    said = server.communicate(timeout=WAIT_S)[0]
    for other in others:
        other.wait(WAIT_S)
    if server.returncode:
        raise SystemExit(f"Flower's server ended with {server.returncode}")
    found: dict[str, Any] = json.loads(said)
    return found


def _await(address: str) -> None:
    host, port = address.split(":")
    until = time.monotonic() + WAIT_S
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1.0):
            return
        time.sleep(0.1)
    raise SystemExit("Flower's server does not listen")


def serve(address: str, clients: int, params: int, rounds: int) -> None:
    """In Flower's environment: one server; prints the median of the rounds and its own peak memory."""
    import flwr
    import numpy as np

    moments: list[float] = []

    class Strategy(flwr.server.strategy.FedAvg):  # type: ignore[misc, name-defined]
        def configure_fit(self, *words: Any, **named: Any) -> Any:
            moments.append(time.monotonic())
            return super().configure_fit(*words, **named)

    model = [np.random.default_rng(0).standard_normal(params, np.float32)]
    strategy = Strategy(
        fraction_evaluate=0.0, min_fit_clients=clients, min_available_clients=clients,
        initial_parameters=flwr.common.ndarrays_to_parameters(model),
    )  # fmt: skip
    # One round more than is measured: a round ends where the next begins.
    config = flwr.server.ServerConfig(num_rounds=rounds + 1)
    flwr.server.start_server(server_address=address, config=config, strategy=strategy)
    seconds = [later - moment for moment, later in itertools.pairwise(moments)]
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    print(json.dumps({"seconds": statistics.median(seconds[1:]), "peak_mb": peak / 1e6}))


def work(address: str) -> None:
    """In Flower's environment: one client."""
    import flwr

    class Client(flwr.client.NumPyClient):  # type: ignore[misc, name-defined]
        def fit(self, parameters: Any, config: Any) -> Any:
            return [array + array.dtype.type(1) for array in parameters], 1, {}

    flwr.client.start_client(server_address=address, client=Client().to_client())


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["server", address, *numbers]:
            serve(address, *map(int, numbers))
        case ["client", address]:
            work(address)
        case _:
            main()
