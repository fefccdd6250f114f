"""docs/asyncapi.json from the same types that check the records: AsyncAPI 3.0 with a JSON Schema for each.

`python -m shared.schemas docs/asyncapi.json` writes it; a test keeps file and code equal.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from shared.bundle import write_whole
from shared.topics import TOPICS, Topic

_WRITERS = {
    "transactions": ("producer",), "labels": ("producer",), "predictions": ("scorer",), "conflicts": ("scorer",),
    "heal-requests": ("monitor",), "adapters": ("healer",), "control": ("monitor",), "metrics": ("monitor",),
    "events": ("producer", "scorer", "healer", "monitor"), "dead-letters": ("scorer", "healer", "monitor"),
    "state": ("monitor",),
}  # fmt: skip
_READERS = {
    "transactions": ("scorer", "healer"), "labels": ("monitor", "healer"), "predictions": ("monitor",),
    "conflicts": (), "heal-requests": ("healer",), "adapters": ("healer", "scorer"), "control": ("scorer", "monitor"),
    "metrics": ("producer",), "events": ("monitor",), "dead-letters": (), "state": ("monitor",),
}  # fmt: skip
_BYTES = {
    "adapters": ("application/octet-stream", "safetensors; headers version, parent, bundle, request, stage, sha256"),
    "dead-letters": (
        "application/octet-stream",
        "the bytes that could not be used; headers reason, field, source.*, service",
    ),
    "state": ("application/json", "the monitor's own, of no use to others"),
}


def asyncapi() -> dict[str, Any]:
    """The whole document. Events carry more facts than their schema names; readers ignore what they do not know."""
    kinds = [t.kind for t in TOPICS.values() if t.kind is not None]
    _, schemas = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    operations = {}
    for service in ("producer", "scorer", "healer", "monitor"):
        for action, table in (("send", _WRITERS), ("receive", _READERS)):
            for name in (n for n, services in table.items() if service in services):
                operations[f"{service}-{action}-{name}"] = {
                    "action": action,
                    "channel": {"$ref": f"#/channels/{name}"},
                    "title": f"{service} {'writes' if action == 'send' else 'reads'} {name}",
                }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Self-healing fraud scoring on Kafka",
            "version": "1",
            "description": "Every topic of a pipeline. With a prefix P each address is P.name.",
        },
        "defaultContentType": "application/json",
        "channels": {name: _channel(topic) for name, topic in TOPICS.items()},
        "operations": operations,
        "components": {
            "messages": {name: _message(topic) for name, topic in TOPICS.items()},
            "schemas": schemas,
        },
    }


def _channel(topic: Topic) -> dict[str, Any]:
    return {
        "address": topic.name,
        "messages": {topic.name: {"$ref": f"#/components/messages/{topic.name}"}},
        "bindings": {
            "kafka": {
                "topic": topic.name,
                "topicConfiguration": {"cleanup.policy": ["compact" if topic.compacted else "delete"]},
            }
        },
    }


def _message(topic: Topic) -> dict[str, Any]:
    message: dict[str, Any] = {
        "name": topic.name,
        "bindings": {"kafka": {"key": {"type": "string", "description": topic.key}}},
    }
    if topic.kind is None:
        message["contentType"], message["description"] = _BYTES[topic.name]
        return message
    return message | {"payload": {"$ref": f"#/components/schemas/{topic.kind.__name__}"}}


def text() -> str:
    """The document as it is committed."""
    return json.dumps(asyncapi(), indent=1) + "\n"


if __name__ == "__main__":
    write_whole(Path(sys.argv[1]), text().encode())
