"""One process full of simulated devices: `python -m bench.devices PORT FIRST COUNT`, in the folder of a benchmark.

It writes down when which device had which model in hands, as `bench.trainer` does, and ends when it is told to.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from bench.links import Links, allow_descriptors
from bench.simulated import Simulated
from bench.trainer import FOLDER
from floe.config import load
from floe.errors import FloeError
from floe.keyring import load_keyring
from floe.service import stopping

TURN_S = 0.25
MEMORY = Path("/dev/shm")  # noqa: S108 (a folder is made in it)


def main() -> None:
    """Ends with the exit code of an error that a person must read."""
    port, first, count = map(int, sys.argv[1:])
    try:
        # A thousand machines do not share one disk: what each syncs to its own goes to memory here.
        with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
            _serve(port, range(first, first + count), Path(folder))
    except FloeError as error:
        print(f"floe: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def _serve(port: int, numbers: range, folder: Path) -> None:
    config, links = load(), Links()
    keyring = load_keyring(config, folder)
    allow_descriptors(len(numbers))
    with Path(FOLDER, f"{os.getpid()}.txt").open("w", buffering=1) as hands, stopping() as stopped:

        def came(model: int) -> None:
            hands.write(f"{model} {time.monotonic()}\n")

        devices = []
        for number in numbers:
            device = Simulated(number, config, keyring, folder / str(number), came)
            links.open(device.link, port)
            devices.append(device)

        def turn() -> bool:
            now = time.monotonic()
            for device in devices:
                device.turn(now)
            return stopped()

        links.run(turn, TURN_S)
        links.close()


if __name__ == "__main__":
    main()
