"""Topics and groups: questions to the cluster, and the two changes, creating and deleting topics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from typing import Any, NamedTuple, TypeVar

import confluent_kafka as ck
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions, NewTopic

from shared.errors import OperatorError, TimedOut
from shared.kafka.client import Complaints, Deadline, ask, client_config, first_contact, open_client
from shared.kafka.reading import closing, open_reader, partitions_of
from shared.topics import TOPICS, Name, topic_name

T = TypeVar("T")


class Member(NamedTuple):
    """A living member of a consumer group. client_id is the name its Session was given."""

    client_id: str
    host: str
    partitions: list[tuple[str, int]]


class Copies(NamedTuple):
    """Of one partition, by broker id. leader: -1 where there is none now."""

    leader: int
    replicas: list[int]
    in_sync: list[int]


def _open(kafka: Mapping[str, Any]) -> tuple[AdminClient, Complaints]:
    complaints = Complaints()
    return open_client(AdminClient, {**client_config(kafka, "admin"), "error_cb": complaints}), complaints


def _result(future: Future[T], timeout_s: float) -> T:
    """A future's result, its time-out told as Kafka tells one."""
    try:
        return future.result(timeout_s)
    except TimeoutError as exc:
        raise ck.KafkaException(ck.KafkaError(ck.KafkaError._TIMED_OUT)) from exc


def _usable(admin: AdminClient, timeout_s: float) -> dict[str, int]:
    """Partition count of every topic all of whose partitions have a leader."""
    return {
        name: len(topic.partitions)
        for name, topic in admin.list_topics(timeout=timeout_s).topics.items()
        if topic.error is None and all(p.leader >= 0 for p in topic.partitions.values())
    }


def topic_operations(kafka: Mapping[str, Any], topics: Iterable[str], budget_s: float = 15.0) -> dict[str, set[str]]:
    """What the authorizer allows us on each topic, as READ, WRITE, ..: all where there is no authorizer, nothing where
    we may not even see it. Topics that do not exist are left out. Raises OperatorError when no broker answers."""
    admin, complaints = _open(kafka)
    asked = ck.TopicCollection(list(topics))

    def look(timeout_s: float) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        futures = admin.describe_topics(asked, request_timeout=timeout_s, include_authorized_operations=True)
        for name, future in futures.items():
            try:
                if allowed := _result(future, timeout_s).authorized_operations:  # else: a broker that does not tell
                    found[name] = {operation.name for operation in allowed}
            except ck.KafkaException as exc:
                code = exc.args[0].code()
                if code == ck.KafkaError.TOPIC_AUTHORIZATION_FAILED:
                    found[name] = set()
                elif code != ck.KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise
        return found

    with first_contact(kafka, admin, complaints):
        return ask(look, Deadline(budget_s))


def list_topics(kafka: Mapping[str, Any], budget_s: float = 15.0) -> dict[str, int]:
    """Partition count per topic. Raises OperatorError when no broker answers."""
    admin, complaints = _open(kafka)
    with first_contact(kafka, admin, complaints):
        return ask(lambda s: _usable(admin, s), Deadline(budget_s))


def create_topics(
    kafka: Mapping[str, Any], prefix: str = "", *, partitions: int = 6, budget_s: float = 60.0,
    names: Iterable[Name] | None = None,
) -> list[str]:  # fmt: skip
    """Create what is missing of a pipeline's topics; returns the names created, once all of it can be used.

    Raises OperatorError: no broker answers, or it refuses.
    """
    admin, complaints = _open(kafka)
    deadline = Deadline(budget_s)
    wanted = {topic_name(t.name, prefix): t for t in (TOPICS[n] for n in (names or TOPICS))}
    with first_contact(kafka, admin, complaints):
        missing = wanted.keys() - ask(lambda s: _usable(admin, s), deadline).keys()
        new = [
            NewTopic(name, num_partitions=partitions if topic.partitioned else 1, config=topic.config())
            for name, topic in wanted.items()
            if name in missing
        ]
        created = list(_create(admin, new, deadline))
        # The controller said yes; the brokers learn of it a moment later.
        ask(lambda s: _expect(wanted.keys() - _usable(admin, s).keys()), deadline)
    return created


def _create(admin: AdminClient, new: list[NewTopic], deadline: Deadline) -> Iterable[str]:
    if not new:
        return
    for name, future in admin.create_topics(new, request_timeout=deadline.left_s()).items():
        try:
            _result(future, deadline.left_s())
            yield name
        except ck.KafkaException as exc:
            error: ck.KafkaError = exc.args[0]
            if error.code() == ck.KafkaError._TIMED_OUT:
                raise TimedOut(f"topic {name} was not created within {deadline.seconds:g} s") from exc
            if error.code() != ck.KafkaError.TOPIC_ALREADY_EXISTS:  # else: somebody was quicker
                raise OperatorError(f"cannot create topic {name}: {error.str()}") from exc


def delete_topics(kafka: Mapping[str, Any], names: Iterable[str], budget_s: float = 30.0) -> None:
    """Delete topics, with all that is on them; one that is not there is no fault. Raises OperatorError."""
    admin, complaints = _open(kafka)
    deadline = Deadline(budget_s)
    wanted = list(names)
    with first_contact(kafka, admin, complaints):
        for name, future in admin.delete_topics(wanted, request_timeout=deadline.left_s()).items() if wanted else ():
            try:
                _result(future, deadline.left_s())
            except ck.KafkaException as exc:
                error: ck.KafkaError = exc.args[0]
                if error.code() != ck.KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise OperatorError(f"cannot delete topic {name}: {error.str()}") from exc


def _expect(missing: Iterable[str]) -> None:
    if missing:
        raise ck.KafkaException(ck.KafkaError(ck.KafkaError._TIMED_OUT, f"not there yet: {', '.join(missing)}"))


def grow_topic(kafka: Mapping[str, Any], topic: str, partitions: int, budget_s: float = 30.0) -> None:
    """Give a topic this many partitions in all. Raises OperatorError: no broker answers, or it refuses."""
    admin, complaints = _open(kafka)
    deadline = Deadline(budget_s)
    with first_contact(kafka, admin, complaints):
        for future in admin.create_partitions(
            [NewPartitions(topic, partitions)], request_timeout=deadline.left_s()
        ).values():
            try:
                _result(future, deadline.left_s())
            except ck.KafkaException as exc:
                raise OperatorError(f"cannot grow {topic} to {partitions} partitions: {exc.args[0].str()}") from exc


def copies(kafka: Mapping[str, Any], topic: str, budget_s: float = 15.0) -> dict[int, Copies]:
    """Who leads each partition and who has it. Raises OperatorError: no broker answers, TimedOut."""
    admin, complaints = _open(kafka)
    with first_contact(kafka, admin, complaints):
        found = ask(lambda s: admin.list_topics(topic, timeout=s).topics[topic], Deadline(budget_s))
    return {n: Copies(p.leader, list(p.replicas), list(p.isrs)) for n, p in found.partitions.items()}


def group_members(kafka: Mapping[str, Any], group: str, budget_s: float = 15.0) -> list[Member]:
    """Who is in the group now; empty when it does not exist. Raises OperatorError: no broker answers, Fatal."""
    admin, complaints = _open(kafka)

    def look(timeout_s: float) -> list[Member]:
        try:
            described = _result(admin.describe_consumer_groups([group], request_timeout=timeout_s)[group], timeout_s)
        except ck.KafkaException as exc:
            if exc.args[0].code() == ck.KafkaError.GROUP_ID_NOT_FOUND:
                return []
            raise
        return [
            Member(m.client_id, m.host, [(p.topic, p.partition) for p in m.assignment.topic_partitions])
            for m in described.members
        ]

    with first_contact(kafka, admin, complaints):
        return ask(look, Deadline(budget_s))


def group_offsets(
    kafka: Mapping[str, Any], group: str, topics: Iterable[str], budget_s: float = 15.0
) -> dict[tuple[str, int], int]:
    """Committed offset per (topic, partition) of a group. Raises OperatorError: no broker answers, no such topic.

    Asked through a consumer: the admin client's own call crashes the process (confluent-kafka 2.16.1) where the
    coordinator answers with an error, as it does while it loads.
    """
    deadline, complaints = Deadline(budget_s), Complaints()
    consumer = open_reader(kafka, "group-offsets", complaints, **{"group.id": group})
    with closing(consumer), first_contact(kafka, consumer, complaints):
        parts = [p for t in topics for p in partitions_of(consumer, t, deadline)]
        found = ask(lambda s: consumer.committed(parts, timeout=s), deadline)
    return {(p.topic, p.partition): p.offset for p in found if p.offset >= 0}
