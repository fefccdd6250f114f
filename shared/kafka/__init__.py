"""The only importer of confluent_kafka: consuming, transactions, whole-topic readers, offset ranges, topics.

The rules that the rest relies on, each explained where it is kept:
- everything reads read_committed, offsets are committed only inside transactions (session.py);
- no record is waited for with a transaction open, and one call owns begin, commit and abort (session.py, writing.py);
- every blocking call draws on a Deadline, and an error says what the caller must do next (client.py).
"""

from shared.kafka.admin import (
    Copies,
    Member,
    copies,
    create_topics,
    delete_topics,
    group_members,
    group_offsets,
    grow_topic,
    list_topics,
    topic_operations,
)
from shared.kafka.client import Deadline, client_config, verdict
from shared.kafka.fetching import Fetcher
from shared.kafka.following import Follower, read_all
from shared.kafka.plain import Headers, Out, Taken
from shared.kafka.reading import closing, offsets_at, watermarks
from shared.kafka.session import Session
from shared.kafka.unreadable import UNREADABLE
from shared.kafka.writing import Writer

__all__ = [
    "UNREADABLE",
    "Copies",
    "Deadline",
    "Fetcher",
    "Follower",
    "Headers",
    "Member",
    "Out",
    "Session",
    "Taken",
    "Writer",
    "client_config",
    "closing",
    "copies",
    "create_topics",
    "delete_topics",
    "group_members",
    "group_offsets",
    "grow_topic",
    "list_topics",
    "offsets_at",
    "read_all",
    "topic_operations",
    "verdict",
    "watermarks",
]
