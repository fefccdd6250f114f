"""docs/asyncapi.json says what the code says, and holds together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from shared import schemas
from shared.topics import TOPICS

FILE = Path(__file__).parent.parent / "docs" / "asyncapi.json"


def references(node: Any) -> list[str]:
    if isinstance(node, dict):
        return [node["$ref"]] if "$ref" in node else [r for v in node.values() for r in references(v)]
    return [r for v in node for r in references(v)] if isinstance(node, list) else []


def test_the_committed_file_is_what_the_code_says():
    assert FILE.read_text() == schemas.text(), "run: python -m shared.schemas docs/asyncapi.json"


def test_every_reference_leads_somewhere():
    document = schemas.asyncapi()
    found = references(document)
    assert found
    for reference in found:
        node = document
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]


def test_every_topic_has_a_writer_and_a_message_with_a_payload_or_a_word_on_its_bytes():
    document = json.loads(FILE.read_text())
    writers = {o["channel"]["$ref"] for o in document["operations"].values() if o["action"] == "send"}
    assert writers == {f"#/channels/{name}" for name in TOPICS}
    for message in document["components"]["messages"].values():
        assert "payload" in message or message["description"]


def test_limits_of_the_fields_are_in_the_schema():
    ids = schemas.asyncapi()["components"]["schemas"]["Transactions"]["properties"]["transaction_ids"]
    assert (ids["minItems"], ids["maxItems"]) == (1, 1_000)
