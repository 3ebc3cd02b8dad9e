"""`floe ...` of a device that sends its weights as they are, whatever its plan says."""

from __future__ import annotations

import sys

from msgspec.structs import replace

from edge_client.task import Task
from floe import cli

_file = Task._file


def main() -> None:
    Task._file = lambda self, phase, plan, base, arrays: _file(
        self, phase, replace(plan, upload="weights"), base, arrays
    )  # type: ignore[method-assign]
    sys.argv = ["floe", *sys.argv[sys.argv.index("--") + 1 :]]
    cli.main()


if __name__ == "__main__":
    main()
