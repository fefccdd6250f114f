"""Least privilege, held to a real authorizer: each service works with exactly the rights of shared/rights.py, and
without any one of them fails by name."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from conftest import read_whole
from secure_kit import Secured

from healer import service as healer_service
from monitor import service as monitor_service
from producer import service as producer_service
from producer.sources import Synthetic
from scorer import service as scorer_service
from selfheal.acl import command, markdown
from selfheal.control import pin
from selfheal.serve import check_rights
from shared.adapters import first_adapter, pack
from shared.bundle import Bundle
from shared.errors import OperatorError
from shared.kafka import Out, Writer, create_topics, watermarks
from shared.records import HealRequest, OffsetRange, encode
from shared.rights import NEEDS, Right, Role, rights
from shared.settings import HealerSettings, MonitorSettings, ProducerSettings, ScorerSettings, ServiceSettings, load
from shared.topics import Name, topic_name

pytestmark = pytest.mark.broker
ROOT = Path(__file__).parents[1]
AT = "2026-01-01T00:00:07Z"
ENDS_S = 25.0
SERVICES: dict[str, tuple[ModuleType, type[ServiceSettings]]] = {
    "scorer": (scorer_service, ScorerSettings),
    "healer": (healer_service, HealerSettings),
    "monitor": (monitor_service, MonitorSettings),
}
TYPES = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactional-id": ResourceType.TRANSACTIONAL_ID,
}


class Acls:
    """Grants and revokes, and waits until the authorizer goes by it."""

    def __init__(self, secured: Secured) -> None:
        self._admin = AdminClient(secured.plain)

    def grant(self, given: list[Right]) -> None:
        for future in self._admin.create_acls([_binding(r) for r in given]).values():
            future.result(10)
        for right in given:
            self._wait(right, there=True)

    def revoke(self, right: Right) -> None:
        for future in self._admin.delete_acls([_filter(right)]).values():
            assert len(future.result(10)) == 1
        self._wait(right, there=False)

    def _wait(self, right: Right, *, there: bool) -> None:
        deadline = time.monotonic() + 10
        while bool(self._admin.describe_acls(_filter(right)).result(10)) != there:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    @contextmanager
    def without(self, right: Right) -> Iterator[None]:
        self.revoke(right)
        try:
            yield
        finally:
            self.grant([right])


def _binding(right: Right) -> AclBinding:
    pattern = ResourcePatternType.PREFIXED if right.prefixed else ResourcePatternType.LITERAL
    operation = AclOperation[right.operation.upper()]
    user = "producer" if right.role == "lockstep" else right.role
    return AclBinding(
        TYPES[right.resource], right.name, pattern, f"User:{user}", "*", operation, AclPermissionType.ALLOW
    )


def _filter(right: Right) -> AclBindingFilter:
    b = _binding(right)
    return AclBindingFilter(
        b.restype, b.name, b.resource_pattern_type, b.principal, b.host, b.operation, b.permission_type
    )


@pytest.fixture(scope="module")
def acls(secured: Secured) -> Acls:
    return Acls(secured)


def granted(secured: Secured, acls: Acls) -> str:
    """The prefix of a new pipeline whose users have exactly what the table says."""
    fresh = f"acl{uuid.uuid4().hex[:8]}"
    create_topics(secured.plain, fresh, partitions=1)
    acls.grant([r for role in NEEDS if role not in ("look", "setup") for r in rights(role, fresh)])
    return fresh


@pytest.fixture(scope="module")
def pipeline(secured: Secured, acls: Acls) -> str:
    """One for all tests that take a right away and give it back."""
    return granted(secured, acls)


class Runner(threading.Thread):
    """A service as its own user, in a thread."""

    def __init__(self, role: str, secured: Secured, prefix: str, bundle: Bundle, **more: Any) -> None:
        super().__init__(daemon=True)
        self._module, kind = SERVICES[role]
        self._settings = load(kind, prefix=prefix, session_timeout_ms=6_000, commit_budget_s=10.0, **more)
        self._kafka, self._bundle, self._ending = secured.user(role), bundle, threading.Event()
        self.raised: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._module.run(self._settings, self._kafka, self._bundle, self._ending.is_set)
        except BaseException as exc:  # noqa: BLE001 - looked at by the test's own thread
            self.raised = exc

    def end(self) -> None:
        self._ending.set()
        self.join(30)
        assert not self.is_alive()


def test_with_exactly_these_rights_a_whole_pipeline_works(
    secured: Secured, acls: Acls, bundle: Bundle, wait_for: Callable[..., None]
) -> None:
    """In lockstep, with a heal, a dead letter of each service, and a person's pin."""
    pipeline = granted(secured, acls)
    strangers: tuple[Name, ...] = ("transactions", "predictions", "heal-requests")
    Writer(secured.plain, "stranger").publish([Out(topic_name(n, pipeline), "k", b"junk") for n in strangers])
    runners = [
        Runner(role, secured, pipeline, bundle, **more)
        for role, more in (("scorer", {"poll_s": 0.05}), ("healer", {}), ("monitor", {"policy": "reference"}))
    ]
    drifted = Synthetic(seed=3, rows=100)
    try:
        done = producer_service.run(
            load(ProducerSettings, prefix=pipeline), secured.user("producer"), drifted, batches=3, lockstep=True
        )
        assert done.batches == 3

        def count(name: Name) -> int:
            return len(read_whole(secured.plain, topic_name(name, pipeline)))

        wait_for(lambda: count("dead-letters") >= 3, "three dead letters")
        assert count("predictions") == 3 + 1  # and the junk
        assert count("metrics") >= 3
        ask_for_a_heal(secured, pipeline, bundle)
        wait_for(lambda: count("adapters") == 2, "two adapters")
        pin(secured.user("pin"), pipeline, "v3", "why not")
        assert [m.key() for m in read_whole(secured.plain, topic_name("control", pipeline))].count(b"pin") == 1
    finally:
        for runner in runners:
            runner.end()
    assert [r.raised for r in runners] == [None] * 3


def ask_for_a_heal(secured: Secured, prefix: str, bundle: Bundle) -> None:
    """Of the newest good batch, with its labels."""
    spans = {
        n: OffsetRange(topic=topic_name(n, prefix), partition=0, start=high - 1, end=high)
        for n in ("transactions", "labels")
        for high in [watermarks(secured.plain, topic_name(n, prefix))[0][1]]
    }
    request = HealRequest(
        request_id=f"by-hand-{uuid.uuid4().hex[:6]}", policy="reference", reason="r", base_version="v1",
        bundle=bundle.hash, batch_id="b", at=AT, transactions=[spans["transactions"]], labels=[spans["labels"]],
    )  # fmt: skip
    Writer(secured.plain, "stranger").publish([Out(topic_name("heal-requests", prefix), "k", encode(request))])


def feed(secured: Secured, prefix: str, bundle: Bundle) -> None:
    """One of everything: a good batch with its labels, and work for each service."""
    name = uuid.uuid4().hex[:8]
    x, y = bundle.reference_x[:20], bundle.reference_y[:20]
    ids = [f"{name}-{i}" for i in range(20)]
    batch = {"batch_id": name, "transaction_ids": ids, "features": x.tolist(), "created_at": AT}
    labels = {"batch_id": name, "transaction_ids": ids, "labels": y.tolist()}
    Writer(secured.plain, "stranger").publish([
        Out(topic_name("transactions", prefix), name, encode(batch)),
        Out(topic_name("labels", prefix), name, encode(labels)),
        Out(topic_name("predictions", prefix), name, b"junk"),
    ])  # fmt: skip
    ask_for_a_heal(secured, prefix, bundle)


def test_every_right_on_a_topic_is_missed_by_name_before_anything_is_done(
    secured: Secured, pipeline: str, acls: Acls
) -> None:
    for role in ("scorer", "healer", "monitor", "producer", "lockstep"):
        user = secured.user("producer" if role == "lockstep" else role)
        check_rights(user, role, pipeline)
        needed = [r for r in rights(role, pipeline) if r.resource == "topic"]
        assert needed
        for right in needed:
            with acls.without(right), pytest.raises(OperatorError) as told:
                check_rights(user, role, pipeline)
            assert f"{role} is not allowed: {right.operation} on topic {right.name}; `selfheal acl" in str(told.value)
        check_rights(user, role, pipeline)


@pytest.mark.parametrize(
    ("role", "operation", "resource", "name"),
    [
        ("scorer", "Read", "group", ""), ("scorer", "Write", "transactional-id", ""),
        ("scorer", "Write", "topic", "predictions"), ("healer", "Read", "group", ""),
        ("healer", "Read", "topic", "transactions"), ("healer", "Write", "topic", "adapters"),
        ("monitor", "Read", "topic", "labels"), ("monitor", "Read", "topic", "state"),
        ("monitor", "Write", "topic", "control"), ("monitor", "Write", "topic", "dead-letters"),
    ],
)  # fmt: skip
def test_a_right_that_is_taken_away_ends_the_service_with_its_name(
    secured: Secured, pipeline: str, acls: Acls, bundle: Bundle, role: Role, operation: str, resource: str, name: Name
) -> None:
    """Past the look at the start: what each client says when the broker refuses it."""
    [right] = [
        r for r in rights(role, pipeline)
        if (r.operation, r.resource) == (operation, resource) and (not name or r.name == topic_name(name, pipeline))
    ]  # fmt: skip
    feed(secured, pipeline, bundle)
    with acls.without(right):
        runner = Runner(role, secured, pipeline, bundle)
        runner.join(ENDS_S)
        ended = not runner.is_alive()
        runner.end()
    assert ended
    assert isinstance(runner.raised, OperatorError), runner.raised
    assert f"{operation} on " in str(runner.raised)
    assert right.name in str(runner.raised)


def test_a_person_who_may_not_pin_is_told(secured: Secured, pipeline: str, acls: Acls, bundle: Bundle) -> None:
    adapter = msgspec.structs.replace(first_adapter(bundle), version="v900", parent="v1")
    value, headers = pack(adapter, request="r", stage="post-heal", summary={}, at=AT)
    Writer(secured.plain, "stranger").publish([Out(topic_name("adapters", pipeline), "v900", value, headers)])
    read, write = rights("pin", pipeline)
    for right in (read, write):
        with acls.without(right), pytest.raises(OperatorError, match=f"{right.operation} on topic {right.name}"):
            pin(secured.user("pin"), pipeline, "v900", "why not")
    with pytest.raises(OperatorError, match=r"Read on topic .*adapters"):
        pin(secured.user("nobody"), pipeline, "v900", "why not")


def test_the_table_in_the_docs_is_this_one_and_the_commands_name_it() -> None:
    assert markdown() in (ROOT / "docs" / "security.md").read_text("utf-8")
    lines = [command(r, "User:CN=scorer") for r in rights("scorer", "P")]
    assert "--allow-principal 'User:CN=scorer' --operation Read --topic 'P.transactions'" in lines[0]
    assert lines[-1].endswith("--operation Write --transactional-id 'P.scorer-scorer' --resource-pattern-type prefixed")
