"""A table of Streamlit. It is painted on a canvas; what screen readers are told of it is read here.

That is a `table` inside the canvas with the rows and columns in view, a quarter of a second behind what is painted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from playwright.sync_api import Locator, Page, expect

SETTLED_MS = 400  # the words for screen readers follow after 200 ms of rest
ROW_PX = 35
MARKER_PX = 16  # the middle of the column with the boxes of rows that can be selected
_READ = """table => ({
    rows: +table.getAttribute('aria-rowcount') - 1,
    heads: [...table.querySelectorAll('th')].map(e => [+e.getAttribute('aria-colindex'), e.textContent]),
    cells: [...table.querySelectorAll('td')].map(e => [
        +e.parentNode.getAttribute('aria-rowindex') - 2, +e.getAttribute('aria-colindex'), e.textContent]),
})"""


@dataclass(frozen=True)
class Table:
    """The `st.dataframe` in `place`. Rows count from 0, as they are shown."""

    page: Page
    place: Locator

    def rows(self) -> list[dict[str, str]]:
        """Every row by the names of the columns, as text. Scrolls through it, and back to its beginning."""
        heads: dict[int, str] = {}
        cells: dict[tuple[int, int], str] = {}
        for top, left in self._views():
            self._scroll(top, left)
            seen = self._read()
            heads.update({column: _name(text) for column, text in seen["heads"]})
            cells.update({(row, column): text for row, column, text in seen["cells"]})
        self._scroll(0, 0)
        order = sorted({row for row, _ in cells})
        return [{heads[c]: cells.get((row, c), "") for c in sorted(heads)} for row in order]

    def seen(self) -> list[dict[str, str]]:
        """The rows and columns in view, at one moment; nothing is touched."""
        seen = self._read()
        heads = {column: _name(text) for column, text in seen["heads"]}
        rows: dict[int, dict[str, str]] = {}
        for row, column, text in seen["cells"]:
            rows.setdefault(row, {})[heads[column]] = text
        return [rows[row] for row in sorted(rows)]

    def column(self, name: str) -> list[str]:
        """One column of every row."""
        return [row[name] for row in self.rows()]

    def count(self) -> int:
        """How many rows there are."""
        return int(self._read()["rows"])

    def select(self, row: int) -> None:
        """Click the box of a row, and see it selected."""
        self._click(MARKER_PX, row)
        expect(self.place.locator(f'tr[aria-rowindex="{row + 2}"]')).to_have_attribute("aria-selected", "true")

    def selected(self) -> list[str]:
        """The text of the selected rows in view, a row in one piece."""
        return self.place.locator("tr[aria-selected=true]").all_text_contents()

    def sort(self, name: str) -> None:
        """Click the head of a column: up, then down, then as it was."""
        self.page.mouse.click(*self._point(self._across(name), ROW_PX // 2))
        self.page.wait_for_timeout(SETTLED_MS)

    def has(self, name: str, value: str) -> bool:
        """Whether a cell of the column, in view, is this text."""
        return any(row.get(name) == value for row in self.seen())

    def _read(self) -> Any:
        return self.place.locator("canvas table[role=grid]").evaluate(_READ)

    def _views(self) -> list[tuple[int, int]]:
        """Where to scroll so that everything has been in view once."""
        height, tall, width, wide = self.place.locator(".dvn-scroller").evaluate(
            "e => [e.clientHeight, e.scrollHeight, e.clientWidth, e.scrollWidth]"
        )
        tops = range(0, max(tall - ROW_PX, 1), max(height - 3 * ROW_PX, ROW_PX))
        return [(top, left) for left in range(0, wide, max(width // 2, 1)) for top in tops]

    def _scroll(self, top: int, left: int) -> None:
        scroller = self.place.locator(".dvn-scroller")
        moved = scroller.evaluate(
            "(e, [top, left]) => { const was = [e.scrollTop, e.scrollLeft]; e.scrollTop = top; e.scrollLeft = left;"
            " return was[0] !== e.scrollTop || was[1] !== e.scrollLeft }",
            [top, left],
        )
        if moved:
            self.page.wait_for_timeout(SETTLED_MS)

    def _across(self, name: str) -> int:
        """A point of a column, from the left of the table: clicks into the first row tell where columns are."""
        index = next(column for column, text in self._read()["heads"] if _name(text) == name)
        low, high = 0, int(self.place.locator(".dvn-scroller").evaluate("e => e.clientWidth"))
        while high - low > 2:
            middle = (low + high) // 2
            self._click(middle, 0)
            self.page.wait_for_timeout(SETTLED_MS)
            found = self.place.locator("td[aria-selected=true]").get_attribute("aria-colindex")
            if found == str(index):
                return middle
            low, high = (middle, high) if int(found or 0) < index else (low, middle)
        raise AssertionError(f"no column {name!r} in view")

    def _click(self, across: int, row: int) -> None:
        top = self.place.locator(".dvn-scroller").evaluate("e => e.scrollTop")
        self.page.mouse.click(*self._point(across, ROW_PX * (row + 1) + ROW_PX // 2 - top))

    def _point(self, across: int, down: int) -> tuple[float, float]:
        self.place.scroll_into_view_if_needed()
        box = self.place.locator("canvas").first.bounding_box()
        assert box, "the table is not in view"
        return box["x"] + across, box["y"] + down


def _name(head: str) -> str:
    """The name of a column without the arrow of one that is sorted."""
    return head.removeprefix("↑ ").removeprefix("↓ ")
