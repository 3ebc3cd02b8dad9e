"""`floe ...` in which devices' certificates are made by a clock some days behind: for tests of what expires.

python -m helpers.dated 100 aggregator
"""

from __future__ import annotations

import sys
import time

from aggregator.certify import Certifier
from floe import cli

DAY_S = 86_400.0

if __name__ == "__main__":
    behind_s = float(sys.argv.pop(1)) * DAY_S
    Certifier.__init__.__defaults__ = (lambda: time.time() - behind_s,)
    cli.main()
