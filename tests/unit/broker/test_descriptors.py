"""A broker for a thousand devices needs more open files than the usual limit, and asks for them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_the_soft_limit_of_open_files_is_raised_to_the_hard_one() -> None:
    code = (
        "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (64, r.getrlimit(r.RLIMIT_NOFILE)[1]));"
        "from broker import run; run._allow_descriptors();"
        "soft, hard = r.getrlimit(r.RLIMIT_NOFILE); assert soft == hard > 64, (soft, hard)"
    )
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
