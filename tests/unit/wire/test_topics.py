"""Topics: build and parse are inverses, and nothing else is a topic."""

from __future__ import annotations

from dataclasses import fields
from typing import get_type_hints

import pytest
from helpers.wire import names, right_or_refused
from hypothesis import given
from hypothesis import strategies as st

from floe import topics


def _any_topic(kind: type[topics.Topic]) -> st.SearchStrategy[topics.Topic]:
    hints = get_type_hints(kind)
    levels = {f.name: names if hints[f.name] is str else st.integers(0, 10**10 - 1) for f in fields(kind)}
    return st.builds(kind, **levels)


@given(st.one_of(*map(_any_topic, topics.ALL)))
def test_parse_is_the_inverse_of_str(topic: topics.Topic) -> None:
    assert topics.parse(str(topic)) == topic


@given(st.text(max_size=200) | st.text("floe/device#+$\n\0-_01", max_size=60))
def test_any_text_is_refused_or_is_the_topic_that_it_says(text: str) -> None:
    with right_or_refused("malformed"):
        assert str(topics.parse(text)) == text


@pytest.mark.parametrize("level", ["", "A", "a/b", "#", "+", "$SYS", "a\n", "a\0", "é", "a" * 65])
def test_a_topic_with_a_level_that_is_no_name_cannot_be_made(level: str) -> None:
    with pytest.raises(ValueError, match="not a topic of Floe"):
        topics.DeviceStatus("floe", level)
    with pytest.raises(ValueError, match="not a topic of Floe"):
        topics.DeviceStatus(level, "ann")


@pytest.mark.parametrize("number", [-1, 10**10])
def test_a_topic_with_a_number_out_of_range_cannot_be_made(number: int) -> None:
    with pytest.raises(ValueError, match="not a topic of Floe"):
        topics.DeviceManifest("floe", "ann", "main", number)


def test_a_filter_has_plus_for_every_level_that_is_not_given() -> None:
    assert topics.filter_of(topics.DeviceWant, federation="floe", lineage="main") == "floe/floe/device/+/main/want"


def test_no_topic_is_of_two_kinds() -> None:
    for kind in topics.ALL:
        levels = {f.name: "7" if f.name in ("round", "index") else "to" for f in fields(kind)}
        text = kind.PATTERN.format(**levels)
        assert type(topics.parse(text)) is kind
