"""What people ask of the log: SQL in, frozen dataclasses out. No click, no streamlit, no pandas.

The rule, which `tests/unit/ui/test_query_plans.py` holds every module here to:

- Each statement is a module-level constant in capitals. It begins with SELECT or WITH, is written out (never put
  together from values), and takes what varies as named parameters: `:device`.
- No statement walks through `updates`, `events`, `journal` or `vitals`: EXPLAIN QUERY PLAN says SEARCH for each,
  by an index or by ids, not SCAN; the one exception is a statement of that table alone that reads along its ids or an
  index and ends with a LIMIT, without a condition that could keep it from filling up. The small tables (`devices`,
  `rounds`, `models`, `standing`, `uploads`, `broker`, `control`, `roster`, ...) may be scanned.
- A statement that names one of the four sorts and groups by an index only: a temporary B-tree is refused as well.
- What breaks the rule for a reason stands in that test's list, with the reason.

Functions take an open connection with rows by name first (`ui.reading.read` gives it). Text that came from devices is
given back as it is in the log: hostile. Who shows it makes it harmless.
"""
