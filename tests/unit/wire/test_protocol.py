"""PROTOCOL.md says what the code does: its tables are compared with the types and constants."""

from __future__ import annotations

import json
import re
from typing import get_args, get_type_hints

import msgspec
import pytest
from helpers.protocol import DOCUMENT, in_words, tables_under
from helpers.wire import golden

from floe import (
    coding,
    compression,
    documents,
    encoding,
    hpke,
    messages,
    plan,
    report,
    roster,
    schema,
    seal,
    sequence,
    session,
    telemetry,
    topics,
    transfer,
    weights,
)

HEADINGS: dict[str, type[msgspec.Struct]] = {
    "### Message": messages.Message,
    "### Status, type `status`": messages.Status,
    "### Round, type `round`": messages.Round,
    "### Manifest, type `manifest`": messages.Manifest,
    "### Want, type `want`": messages.Want,
    "### Answer, type `answer`": messages.Answer,
    "### Command, type `command`": messages.Command,
    "### Reply, type `reply`": messages.Reply,
    "### Delegation, type `delegation`": documents.Delegation,
    "### Card, type `card`": documents.Card,
    "### Head, type `head`": documents.Head,
    "### Entry, type `entry`": documents.Entry,
    "### JoinRequest, type `join`": documents.JoinRequest,
    "### JoinReply, type `joined`": documents.JoinReply,
    "### RosterCommand, type `manage`": documents.RosterCommand,
    "### RosterReply, type `managed`": documents.RosterReply,
    "### Phase": messages.Phase,
    "### Base": messages.Base,
    "### Core": messages.Core,
    "### Envelope": messages.Envelope,
    "### Operator": documents.Operator,
    "### Aggregator": documents.Aggregator,
    "### Keys": documents.Keys,
    "### Join": documents.Join,
    "### Member": documents.Member,
    "### Proof": documents.Proof,
    "### Sibling": documents.Sibling,
    "### Plan": plan.Plan,
    "### Schema": schema.Schema,
    "### Encoding": encoding.Encoding,
    "### Coded": encoding.Coded,
    "### Report": report.Report,
    "### Privacy": report.Privacy,
    "### Metrics": report.Metrics,
    "### Telemetry": telemetry.Telemetry,
    "### Line": telemetry.Line,
}


@pytest.mark.parametrize("heading", HEADINGS)
def test_every_field_stands_in_its_table_with_what_is_allowed_and_its_default(heading: str) -> None:
    struct = HEADINGS[heading]
    hints = get_type_hints(struct, include_extras=True)
    common = {field.name for field in msgspec.structs.fields(messages.Message)} if "type `" in heading else set()
    expected = [in_words(f, hints[f.name]) for f in msgspec.structs.fields(struct) if f.name not in common]
    written = [tuple(row[:3]) for row in tables_under(heading)[0]]
    assert written == expected


def test_the_headings_name_the_types_of_the_messages() -> None:
    for heading, struct in HEADINGS.items():
        if "type `" in heading:
            assert heading.endswith(f"`{struct.__struct_config__.tag}`")


def test_every_message_on_the_wire_has_a_heading() -> None:
    assert set(messages.Message.__subclasses__()) <= set(HEADINGS.values())


def test_the_table_of_topics_is_the_topics_of_the_code_in_their_order() -> None:
    rows = tables_under("## 2. Topics")[0]
    assert [row[0].strip("`") for row in rows] == [kind.PATTERN for kind in topics.ALL]


def test_who_writes_a_topic_is_its_third_level() -> None:
    for pattern, writer, *_ in tables_under("## 2. Topics")[0]:
        assert pattern.strip("`").split("/")[2] == {"aggregator": "lineage"}.get(writer, writer)


def test_the_payload_of_a_topic_is_the_one_its_docstring_names() -> None:
    for row, kind in zip(tables_under("## 2. Topics")[0], topics.ALL, strict=True):
        payload = row[2]
        assert f"`{payload}`" in (kind.__doc__ or "") or (payload == "sealed chunk" and "sealed chunk" in kind.__doc__)
        assert (row[4] == "yes") == ("retained" in (kind.__doc__ or ""))


def test_every_reason_of_the_code_has_its_row_and_no_other() -> None:
    rows = tables_under("## 10. Reasons")[0]
    assert sorted(row[0].strip("`") for row in rows) == sorted(reason for reason in get_args(messages.Reason) if reason)


def test_the_outcomes_of_the_reasons_are_outcomes_of_the_code() -> None:
    allowed = {*get_args(messages.Outcome), "not answered", "not recorded"}
    for row in tables_under("## 10. Reasons")[0]:
        assert set(re.split(r", or |, ", row[1])) <= allowed


def test_the_limits_are_the_constants_of_the_code() -> None:
    modules = (messages, transfer, seal, weights, schema, session, sequence, documents, hpke, roster, telemetry)
    modules += (coding, compression)
    for name, value, _ in tables_under("## 11. Limits")[0]:
        found = {getattr(module, name) for module in modules if hasattr(module, name)}
        assert found == {int(value)}, name


def test_the_suites_and_dtypes_are_those_of_the_code() -> None:
    assert [row[0] for row in tables_under("### 7.1 Suites")[0]] == list(get_args(messages.Suite))
    rules = {row[0]: row[1] for row in tables_under("## 8. Weights")[0]}
    assert re.findall("`([A-Z0-9]+)`", rules["dtypes"]) == list(weights.DTYPES)


def test_the_tasks_are_those_of_the_code() -> None:
    assert [row[0] for row in tables_under("### 5.1 Phases")[0]] == list(get_args(messages.Task))


def test_the_actions_of_roster_commands_are_those_of_the_code() -> None:
    hint = get_type_hints(documents.RosterCommand)["action"]
    assert [row[0].strip("`") for row in tables_under("### 15.9 Roster commands")[0]] == list(get_args(hint))


def test_the_example_of_the_map_of_cards_is_the_golden_tree() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    shown = text[text.index("### 15.3") : text.index("### 15.4")]
    (case,) = (case for case in golden("valid/trees") if case["name"] == "three cards")
    proofs = {row["device"]: row["proof"] for row in case["proofs"]}
    root, upper, bob, cy, ann = re.findall(r"\b[0-9a-f]{64}\b", shown)
    assert root == case["root"]
    assert (proofs["ann"]["path"], proofs["bob"]["path"]) == ([bob, cy], [upper])
    assert proofs["cy"]["path"] == [bob, ann]
    assert (proofs["dan"]["path"], proofs["dan"]["other"]["name"][:8]) == ([upper], "81b637d8")


def test_the_worked_example_is_the_golden_flow() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    shown = text[text.index("## 13.") :].split("```")[1].strip().splitlines()
    for line, step in zip(shown, golden("valid/flow"), strict=True):
        topic, _, payload = line.partition(" ")
        assert topic == step["topic"]
        assert (payload == "...") == ("hex" in step)
        if "text" in step:
            _same_but_for_cuts(payload, step["text"])


def _same_but_for_cuts(shown: str, whole: str) -> None:
    readable = json.loads(shown.replace(",...}", "}"))
    full = json.loads(whole)
    assert readable.keys() == full.keys()
    pieces = [re.escape(piece) for piece in shown.split("...")]
    assert re.fullmatch(".*".join(pieces), whole)


def test_links_and_sections_that_the_document_speaks_of_exist() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    sections = set(re.findall(r"^#{2,3} ([0-9]+(?:\.[0-9]+)?)", text, re.M))
    assert set(re.findall(r"section ([0-9]+(?:\.[0-9]+)?)", text)) - {"5"} <= sections
    anchors = {re.sub(r"[^a-z0-9_ -]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^## (.*)$", text, re.M)}
    assert set(re.findall(r"\(#([^)]*)\)", text)) == anchors
