"""Records that the client cannot unpack: a compressed batch of a stranger that unfolds to more than
receive.message.max.bytes (zstd; 100 MB by default). Left to itself the client asks for it for ever, and nothing behind
it is ever read."""

from __future__ import annotations

from collections.abc import Callable

import confluent_kafka as ck

from shared.kafka.plain import Taken

UNREADABLE = "unreadable"  # header of what stands for such a record: the client's reason


def stand_in(error: ck.KafkaError, message: ck.Message, position: Callable[[tuple[str, int]], int]) -> Taken | None:
    """A record without a value in place of the one that the reader stands at and has to step over; None for any other
    error. position: the reader's offset in a (topic, partition); the error itself names the beginning of the compressed
    batch, wherever in it the reader stands. Its records are stepped over one by one, each with its own dead letter."""
    if error.code() != ck.KafkaError._BAD_COMPRESSION:
        return None
    topic, partition, base = message.topic(), message.partition(), message.offset()
    if topic is None or partition is None or base is None:
        return None
    return Taken(
        topic, partition, max(base, position((topic, partition))), 0, None, None, {UNREADABLE: error.str().encode()}
    )
