"""sqlite-utils without pandas, which it imports where that is installed: 50 MB and half a second for one type name."""

from __future__ import annotations

import sys

_pandas = sys.modules.get("pandas")
sys.modules["pandas"] = None  # type: ignore[assignment]  # importing it now fails, which sqlite-utils is ready for
try:
    from sqlite_utils import Database, Migrations
finally:
    del sys.modules["pandas"]
    if _pandas is not None:
        sys.modules["pandas"] = _pandas

__all__ = ["Database", "Migrations"]
