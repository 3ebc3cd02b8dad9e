"""`floe ...` that repeats a command five times a second, not after two seconds: for tests that lose many.

python -m helpers.hasty round pause
"""

from __future__ import annotations

from floe import cli, steer

if __name__ == "__main__":
    steer.AGAIN_S = 0.2
    cli.main()
