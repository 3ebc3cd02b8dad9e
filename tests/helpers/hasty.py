"""`floe ...` that asks three times a second, not after two seconds: for tests that lose many questions and answers.

python -m helpers.hasty round pause
"""

from __future__ import annotations

from edge_client import enrolled, joining
from floe import asking, cli, devices

if __name__ == "__main__":
    asking.AGAIN_S = joining.FIRST_S = enrolled.FIRST_S = devices.POLL_S = 0.3
    cli.main()
