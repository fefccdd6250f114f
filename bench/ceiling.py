"""The ceiling: consume, produce as many bytes as a prediction has, one transaction each 100 ms, no work at all."""

from __future__ import annotations

import sys
import time

import confluent_kafka as ck


def main(bootstrap: str, topic: str, out: str, group: str, size: int) -> None:
    consumer = ck.Consumer({
        "bootstrap.servers": bootstrap, "group.id": group, "enable.auto.commit": False,
        "auto.offset.reset": "earliest", "isolation.level": "read_committed", "fetch.queue.backoff.ms": 10,
    })  # fmt: skip
    producer = ck.Producer({
        "bootstrap.servers": bootstrap, "transactional.id": group, "linger.ms": 5, "compression.type": "lz4",
        "retry.backoff.ms": 10, "queue.buffering.max.messages": 1_000_000,
    })  # fmt: skip
    producer.init_transactions(30)
    consumer.subscribe([topic])
    value = (b'{"probability":0.123456,' * (size // 24 + 1))[:size]
    while True:
        end, taken = time.monotonic() + 0.1, dict[int | None, int]()
        while time.monotonic() < end:
            for m in consumer.consume(1_000, 0.02):
                if m.error() is not None:
                    continue
                if not taken:
                    producer.begin_transaction()
                producer.produce(out, value, m.key())
                taken[m.partition()] = (m.offset() or 0) + 1
            producer.poll(0)
        if taken:
            offsets = [ck.TopicPartition(topic, p, o) for p, o in taken.items() if p is not None]
            producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata(), 30)
            producer.commit_transaction(30)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]))
