"""Signed adapters and control: what no key of ours signed changes nothing, and says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka import Message
from hypothesis import given
from hypothesis import strategies as st
from in_thread import running

from scorer.catalog import Catalog
from selfheal.control import pin
from selfheal.settings_table import markdown
from shared.adapters import first_adapter, pack
from shared.bundle import Bundle
from shared.errors import OperatorError, Refused
from shared.forward import Network
from shared.kafka import Out, Taken, Writer, watermarks
from shared.records import Control, HealRequest, OffsetRange, decode_event, encode
from shared.settings import ServiceSettings, load
from shared.signing import HEADER, Seal
from shared.topics import topic_name

KEY, OLD, OTHER = "k" * 40, "o" * 40, "x" * 40
AT = "2026-01-01T00:00:07Z"


def taken(out: Out, **more: Any) -> Taken:
    """The record as a reader gets it."""
    headers = {k: v.encode() if isinstance(v, str) else v for k, v in out.headers.items()}
    key = out.key.encode() if isinstance(out.key, str) else out.key
    return Taken(out.topic, 0, 0, 0, key, out.value, headers)._replace(**more)


def control(version: str | None, setting: str = "active") -> Out:
    order = {"setting": setting, "at": AT, "by": "monitor", "reason": "r", "version": version}
    return Out("p.control", setting, encode(order))


parts = st.binary(max_size=20)
texts = st.text(max_size=10)
records = st.builds(
    Out, st.sampled_from(["p.control", "p.adapters"]), st.none() | parts, st.none() | parts,
    st.dictionaries(texts.filter(lambda name: name != HEADER), parts, max_size=4),
)  # fmt: skip


@given(records)
def test_what_is_signed_is_taken_and_without_a_key_nothing_changes(out: Out) -> None:
    signed = Seal("p", [KEY.encode()]).sign(out)
    Seal("p", [KEY.encode()]).check(taken(signed))
    Seal("p", [OTHER.encode(), KEY.encode()]).check(taken(signed))  # a key that is being replaced
    Seal("p").check(taken(signed))
    assert Seal("p").sign(out) is out


@given(records, records)
def test_no_signature_fits_another_record(one: Out, other: Out) -> None:
    """Moving a byte from one part to the next, dropping a header, an empty value for none: all are another record."""
    seal = Seal("p", [KEY.encode()])
    forged = taken(other._replace(headers={**other.headers, HEADER: seal.sign(one).headers[HEADER]}))
    if (one.topic, one.key, one.value, one.headers) == (other.topic, other.key, other.value, other.headers):
        seal.check(forged)
        return
    with pytest.raises(Refused, match="changed since") as told:
        seal.check(forged)
    assert told.value.field == "header:signature"


@pytest.mark.parametrize(
    ("key", "value", "headers"),
    [(b"ab", b"c", {}), (b"abc", b"", {}), (b"abc", None, {}), (b"", b"abc", {}), (b"a", b"bc", {}),
     (b"ab", b"c", {"x": b""}), (b"ab", b"c", {"": b"x"})],
)  # fmt: skip
def test_parts_do_not_run_into_each_other(key: bytes, value: bytes | None, headers: dict[str, bytes]) -> None:
    seal = Seal("p", [KEY.encode()])
    all_of_them = seal.sign(Out("p.control", b"ab", b"c")).headers[HEADER]
    mine = seal.sign(Out("p.control", key, value, headers)).headers[HEADER]
    assert (mine == all_of_them) == ((key, value, headers) == (b"ab", b"c", {}))


def test_other_topics_and_other_pipelines_are_told_apart() -> None:
    seal = Seal("p", [KEY.encode()])
    seal.check(taken(Out("p.transactions", "k", b"v")))
    assert seal.sign(Out("p.transactions", "k", b"v")).headers == {}
    copied = taken(Seal("q", [KEY.encode()]).sign(Out("q.control", "k", b"v")), topic="p.control")
    with pytest.raises(Refused, match="not signed with a key"):
        seal.check(copied)
    for bad in (b"", b"\xff\xfe", b"0" * 64, "é".encode()):
        with pytest.raises(Refused, match="not signed with a key"):
            seal.check(taken(Out("p.control", "k", b"v", {HEADER: bad})))
    with pytest.raises(Refused, match="not signed, and SELFHEAL_SIGNING_KEY is set"):
        seal.check(taken(Out("p.control", "k", b"v")))


def test_keys_come_from_the_environment_or_a_file_and_are_never_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n{OLD}\n")
    monkeypatch.setenv("SELFHEAL_SIGNING_KEY_FILE", str(file))
    from_file = Seal.of(load(ServiceSettings, prefix="p"))
    from_file.check(taken(Seal("p", [OLD.encode()]).sign(control("v2"))))
    monkeypatch.setenv("SELFHEAL_SIGNING_KEY", KEY)
    with pytest.raises(OperatorError, match="both set"):
        Seal.of(load(ServiceSettings))
    monkeypatch.delenv("SELFHEAL_SIGNING_KEY_FILE")
    settings = load(ServiceSettings, prefix="p")
    Seal.of(settings).check(taken(from_file.sign(control("v2"))))
    assert KEY not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()} {markdown()}"


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"short-but-secret", "16 characters, at least 32"), (b" \n", "holds no key"), (b"\xff\xfe", "not text"),
     (None, "cannot read")],
)  # fmt: skip
def test_a_key_that_cannot_be_used_is_named_and_not_shown(tmp_path: Path, content: bytes | None, why: str) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(OperatorError, match=why) as told:
        Seal.of(load(ServiceSettings, signing_key_file=file))
    assert "SELFHEAL_SIGNING_KEY_FILE" in str(told.value)
    assert "short-but-secret" not in str(told.value)


def test_a_fault_elsewhere_does_not_show_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    from shared.settings import ProducerSettings

    monkeypatch.setenv("SELFHEAL_SIGNING_KEY", KEY)
    monkeypatch.setenv("PRODUCER_SETTLE_S", "1")  # shorter than a commit: a fault of two settings together
    monkeypatch.setenv("SELFHEAL_LOG_LEVEL", "LOUD")
    with pytest.raises(OperatorError) as told:
        load(ProducerSettings)
    monkeypatch.delenv("SELFHEAL_LOG_LEVEL")
    with pytest.raises(OperatorError, match="PRODUCER_SETTLE_S") as both:
        load(ProducerSettings)
    assert KEY not in f"{told.value} {both.value}"


def test_a_catalog_with_a_key_passes_over_what_strangers_wrote(bundle: Bundle) -> None:
    seal = Seal("p", [KEY.encode()])
    catalog = Catalog(bundle, Network.of(bundle), seal=seal)
    adapter = msgspec.structs.replace(first_adapter(bundle), version="v2", logit_shift=0.5)
    value, headers = pack(adapter, request="r", stage="post-heal", summary={}, at=AT)
    record = Out("p.adapters", "v2", value, headers)

    told = catalog.adapter(taken(record))
    assert told is not None
    assert (told.version, told.field) == (None, "header:signature")
    assert "v2" not in catalog.view().refused  # who waits for the real one still waits
    assert catalog.adapter(taken(seal.sign(record))) is None
    assert catalog.look_into("v2") is None
    assert "v2" in catalog.view().loaded

    moved = taken(seal.sign(record), headers={**taken(seal.sign(record)).headers, "parent": b"v9"})
    assert catalog.adapter(moved) is not None
    assert catalog.adapter(taken(Out("p.adapters", "v2", None))) is not None  # nor may he take one away
    assert catalog.control(taken(control("v2"))) is not None
    assert catalog.view().active.version == "v1"
    assert catalog.control(taken(seal.sign(control("v2")))) is None
    assert catalog.view().active.version == "v2"
    assert catalog.control(taken(Out("p.control", "active", None))) is not None
    assert catalog.view().active.version == "v2"


@pytest.mark.broker
def test_signed_services_serve_what_they_signed_and_say_what_they_passed_over(
    kafka: dict[str, str], prefix: str, bundle: Bundle, read_topic: Callable[..., list[Message]],
    wait_for: Callable[..., None], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A healer's adapter and a monitor's and a person's orders carry signatures that a scorer takes; a stranger's do
    not move it, and neither is a stranger's adapter a base to heal from."""
    seal, stranger = Seal(prefix, [KEY.encode()]), Writer(kafka, "stranger")
    names = {n: topic_name(n, prefix) for n in ("adapters", "control", "events", "transactions", "heal-requests")}

    def kinds(kind: str) -> list[dict[str, Any]]:
        return [e.facts for e in (decode_event(m.value()) for m in read_topic("events")) if e.kind == kind]

    planted = msgspec.structs.replace(first_adapter(bundle), version="v9", parent="v1", logit_shift=9.0)
    value, headers = pack(planted, request="r", stage="post-heal", summary={}, at=AT)
    rows = {"batch_id": "b", "transaction_ids": ["1", "2"], "created_at": AT}
    rows["features"] = bundle.reference_x[:2].tolist()
    stranger.publish([
        Out(names["adapters"], "v9", value, headers, 0),
        Out(names["control"], "active", encode(Control(
            setting="active", at=AT, by="monitor", reason="believe me", version="v9"))),
        Out(names["transactions"], "b", encode(rows), {}, 0),
    ])  # fmt: skip
    span = OffsetRange(
        topic=names["transactions"], partition=0, start=0, end=watermarks(kafka, names["transactions"])[0][1]
    )
    request = HealRequest(
        request_id="heal-1", policy="reference", reason="r", base_version="v1", bundle=bundle.hash, batch_id="b",
        at=AT, transactions=[span],
    )  # fmt: skip
    from_planted = msgspec.structs.replace(request, request_id="heal-2", base_version="v9")
    stranger.publish([Out(names["heal-requests"], r.request_id, encode(r)) for r in (request, from_planted)])
    with running("healer", kafka, prefix, bundle, signing_key=KEY):
        wait_for(lambda: kinds("heal-failed") and kinds("heal-finished"), "two outcomes")
    with running("monitor", kafka, prefix, bundle, signing_key=KEY):
        wait_for(lambda: any(f.get("policy") for f in kinds("service-started")), "the monitor's start")
    monkeypatch.setenv("SELFHEAL_SIGNING_KEY", KEY)
    [finished], [failed] = kinds("heal-finished"), kinds("heal-failed")
    pin(kafka, prefix, finished["post_version"], "try it")

    assert "header:signature: not signed" in failed["reason"]
    for name in ("adapters", "control"):
        [_unsigned, *own] = read_topic(name)
        assert own
        for message in own:
            record = Taken(message.topic(), 0, 0, 0, message.key(), message.value(), dict(message.headers()))
            seal.check(record)
    with running("scorer", kafka, prefix, bundle, poll_s=0.05, signing_key=KEY):
        wait_for(lambda: len(kinds("record-refused")) == 2, "two records passed over")
        wait_for(lambda: read_topic("predictions"), "a prediction")
    assert {f["record"] for f in kinds("record-refused")} == {f"{names[n]}/0/0" for n in ("adapters", "control")}
    assert {f["field"] for f in kinds("record-refused")} == {"header:signature"}
    [prediction] = read_topic("predictions")
    assert f'"adapter_version":"{finished["post_version"]}"'.encode() in prediction.value()
    assert kinds("adapter-rejected") == []
