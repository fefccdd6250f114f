"""The monitor on a real broker: killed, fenced, rewound, restarted; nothing lost and nothing decided twice."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from in_thread import catching
from monitor_kit import LOCKSTEP, finished, fresh, labels, prediction

from monitor import service
from monitor.decide import Input, fold
from monitor.setup import Setup
from monitor.thinning import is_read
from monitor.thresholds import Thresholds
from shared.bundle import Bundle
from shared.errors import Fenced, Rewind
from shared.kafka import Follower, Out, Session, Taken, Writer, closing
from shared.records import Metrics, decode, encode
from shared.settings import MonitorSettings
from shared.topics import Name, topic_name

pytestmark = pytest.mark.broker
PUBLISHED: tuple[Name, ...] = ("metrics", "events", "heal-requests", "control", "dead-letters")
WaitFor = Callable[..., None]
PATIENCE_S = 60.0  # on a machine that does much else; alone these tests take a second or two each
CHILD = """
import json, signal, sys
from pathlib import Path
from monitor.service import run
from shared import bundle
from shared.errors import Fenced
from shared.settings import MonitorSettings
from shared.telemetry import set_up_logging
kafka, folder, settings = json.loads(sys.argv[1])
stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
set_up_logging("INFO", as_json=True)
try:
    run(MonitorSettings(**settings), kafka, bundle.load(Path(folder)), lambda: bool(stopped))
except Fenced:
    sys.exit(4)
"""


def settings(prefix: str, **more: Any) -> dict[str, Any]:
    return {"SELFHEAL_PREFIX": prefix, "poll_s": 0.05, "policy": "reference", **more}


@contextmanager
def process(kafka: Mapping[str, str], bundle_dir: Path, log: Path, **given: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A monitor as a process of its own, gone when the block is left."""
    arguments = json.dumps([dict(kafka), str(bundle_dir), given])
    with log.open("wb") as out, subprocess.Popen([sys.executable, "-c", CHILD, arguments], stderr=out) as child:
        try:
            yield child
        finally:
            child.kill()


@contextmanager
def thread(kafka: Mapping[str, str], bundle: Bundle, **given: Any) -> Iterator[list[BaseException]]:
    """A monitor in this process, stopped cleanly when the block is left; what it raised."""
    with catching(lambda stop: service.run(MonitorSettings(**given), kafka, bundle, stop), PATIENCE_S) as raised:
        yield raised


def publish(kafka: Mapping[str, str], prefix: str, records: Sequence[Input]) -> None:
    """In the order given: all of one topic go to one partition."""
    with closing(Writer(kafka, "test")) as writer:
        writer.publish(Out(topic_name(r.name, prefix), r.key, r.value, r.headers, partition=0) for r in records)


def batches(bundle: Bundle, n: int, conflicts: int = 0) -> tuple[list[Input], list[Input]]:
    """Predictions, and their labels in two parts."""
    d = len(bundle.features)
    predictions = [
        prediction(f"b{k}", [0.9, 0.2, 0.4], k=k, v14=(k % 7) - 3, bundle=bundle.hash, features=d, conflicts=conflicts)
        for k in range(n)
    ]
    halves = [
        part
        for k in range(n)
        for part in (
            labels(f"b{k}", (1,), of=[f"b{k}-0"]), labels(f"b{k}", (0, k % 2), of=[f"b{k}-1", f"b{k}-2"]),
        )
    ]  # fmt: skip
    return predictions, halves


def expected(bundle: Bundle, given: dict[str, Any], records: Sequence[Input]) -> dict[str, Metrics]:
    """The final rows by the pure fold."""
    of, state = Setup.of(bundle, MonitorSettings(**given), Thresholds()), fresh(bundle.hash)
    decisions = [d for r in records for d in fold(state, of, r, "t")]
    return {d.key: decode(Metrics, encode(d.record)) for d in decisions if d.topic == "metrics"}


class Seen:
    """Everything the monitor published, as it comes."""

    def __init__(self, kafka: Mapping[str, str], prefix: str) -> None:
        self._names = {topic_name(n, prefix): n for n in PUBLISHED}
        self._records: dict[str, list[Taken]] = {n: [] for n in PUBLISHED}
        self._follower = Follower(kafka, list(self._names), name="seen", budget_s=PATIENCE_S)

    def of(self, name: Name) -> list[Taken]:
        """All records of a topic so far."""
        while found := self._follower.take(0.02):
            for record in found:
                self._records[self._names[record.topic]].append(record)
        return self._records[name]

    def bodies(self, name: Name) -> list[dict[str, Any]]:
        return [json.loads(r.value or b"") for r in self.of(name)]

    def rows(self) -> dict[str, Metrics]:
        """The newest row of each batch."""
        return {(r.key or b"").decode(): decode(Metrics, r.value) for r in self.of("metrics")}

    def settled(self) -> int:
        return sum(r.settled for r in self.rows().values())

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [e for e in self.bodies("events") if e["kind"] == kind]

    def close(self) -> None:
        self._follower.close()


@pytest.fixture
def seen(kafka: dict[str, str], prefix: str) -> Iterator[Seen]:
    with closing(Seen(kafka, prefix)) as watching:
        yield watching


def test_killed_again_and_again_it_decides_as_if_it_never_was(
    kafka: dict[str, str], prefix: str, bundle: Bundle, bundle_dir: Path, seen: Seen, wait_for: WaitFor,
    tmp_path: Path,
) -> None:  # fmt: skip
    given = settings(prefix, policy="observe", turn_max=7)
    predictions, halves = batches(bundle, 300)
    publish(kafka, prefix, [*predictions, *halves])
    for kills, least in enumerate((1, 80, 200)):
        with process(kafka, bundle_dir, tmp_path / f"{kills}.log", **given) as child:
            wait_for(lambda least=least: len(seen.of("metrics")) >= least, "rows before the kill", PATIENCE_S)
            assert child.poll() is None
            child.kill()
    wanted = expected(bundle, given, [*predictions, *halves])
    with thread(kafka, bundle, **given) as raised:
        wait_for(lambda: raised or seen.settled() == 300, "all rows settled", PATIENCE_S)
    assert raised == []
    assert seen.rows() == wanted


def test_every_heal_is_asked_once_and_adopted_once_whatever_is_killed(
    kafka: dict[str, str], prefix: str, bundle: Bundle, bundle_dir: Path, seen: Seen, wait_for: WaitFor,
    tmp_path: Path,
) -> None:  # fmt: skip
    given = settings(prefix, turn_max=3)
    predictions, halves = batches(bundle, 60, conflicts=9)
    answered = list[str]()

    def answer() -> None:
        """What a healer would do."""
        for record in seen.of("heal-requests"):
            asked = (record.key or b"").decode()
            if asked not in answered:
                answered.append(asked)
                publish(kafka, prefix, [finished(asked, f"v{2 * len(answered) + 1}")])

    def settled(n: int) -> bool:
        answer()
        return seen.settled() >= n

    for k in range(3):
        with process(kafka, bundle_dir, tmp_path / f"{k}.log", **given) as child:
            wait_for(lambda k=k: len(seen.events("adapter-activated")) == k, "the last heal is adopted", PATIENCE_S)
            publish(kafka, prefix, [*predictions[20 * k : 20 * k + 20], *halves[40 * k : 40 * k + 40]])
            wait_for(lambda k=k: len(seen.of("heal-requests")) > k, "the next heal is asked", PATIENCE_S)
            child.kill()
        answer()  # while there is no monitor
    with thread(kafka, bundle, **given) as raised:
        wait_for(lambda: raised or settled(60), "all rows settled", PATIENCE_S)
    assert raised == []
    final = seen.rows()
    assert sorted(r.batch_idx for r in final.values()) == list(range(1, 61))
    asked = [(r.key or b"").decode() for r in seen.of("heal-requests")]
    activated = [e["request_id"] for e in seen.events("adapter-activated")]
    assert len(asked) == len(set(asked)) >= 3
    assert activated == asked
    assert sorted(f"heal-{r.batch_idx}" for r in final.values() if r.action == "heal") == sorted(asked)


def test_a_second_monitor_fences_the_first_which_says_so_and_exits(
    kafka: dict[str, str], prefix: str, bundle: Bundle, bundle_dir: Path, seen: Seen, wait_for: WaitFor,
    tmp_path: Path,
) -> None:  # fmt: skip
    given = settings(prefix, policy="observe")
    first_log = tmp_path / "first.log"
    with process(kafka, bundle_dir, first_log, **given) as first:
        wait_for(lambda: seen.events("service-started"), "the first is up", PATIENCE_S)
        predictions, _ = batches(bundle, 2)
        publish(kafka, prefix, predictions[:1])
        wait_for(lambda: seen.rows(), "the first has judged", PATIENCE_S)
        with process(kafka, bundle_dir, tmp_path / "second.log", **given) as second:
            wait_for(lambda: first.poll() is not None, "the first has ended", PATIENCE_S)
            assert first.returncode == 4
            said = [json.loads(line) for line in first_log.read_text().splitlines()]
            assert any("another monitor took over" in line.get("message", "") for line in said)
            publish(kafka, prefix, predictions[1:])
            wait_for(lambda: len(seen.rows()) == 2, "the second goes on", PATIENCE_S)
            assert second.poll() is None
    assert [r.batch_idx for r in seen.rows().values()] == [1, 2]


def test_what_cannot_be_read_becomes_a_dead_letter_and_the_next_is_judged(
    kafka: dict[str, str], prefix: str, bundle: Bundle, seen: Seen, wait_for: WaitFor
) -> None:
    (good, *_), _ = batches(bundle, 1)
    foreign = prediction("b9", bundle="f" * 64, features=len(bundle.features))
    with thread(kafka, bundle, **settings(prefix)) as raised:
        publish(kafka, prefix, [good._replace(value=b"{"), foreign, labels("b1")._replace(value=None), good])
        wait_for(
            lambda: raised or (seen.rows() and len(seen.of("dead-letters")) == 3),
            "three dead letters",
            PATIENCE_S,
        )
    assert raised == []
    letters = {(r.key or b"").decode(): r for r in seen.of("dead-letters")}
    at = topic_name("predictions", prefix)
    assert set(letters) == {f"{at}/0/0", f"{at}/0/1", f"{topic_name('labels', prefix)}/0/0"}
    headers = letters[f"{at}/0/1"].headers
    assert letters[f"{at}/0/0"].value == b"{"
    assert (headers["field"], headers["service"], headers["source.offset"]) == (b"bundle", b"monitor", b"1")
    assert b"made by bundle ffffffffffff" in headers["reason"]
    assert list(seen.rows()) == ["b0"]


def test_an_aborted_turn_is_taken_again_from_the_committed_state(
    kafka: dict[str, str], prefix: str, bundle: Bundle, seen: Seen, wait_for: WaitFor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    commits = list[int]()

    class Shaky(Session):
        """Every third transaction is aborted when all of it was produced."""

        def commit(self, outputs: Any, **_: Any) -> None:
            commits.append(1)

            def fail() -> None:
                if len(commits) % 3 == 0:
                    raise Rewind("as if the broker had said so")

            super().commit(outputs, before_commit=fail)

    monkeypatch.setattr(service, "Session", Shaky)
    given = settings(prefix, policy="observe", turn_max=5)
    predictions, halves = batches(bundle, 30)
    publish(kafka, prefix, [*predictions, *halves])
    with thread(kafka, bundle, **given) as raised:
        wait_for(lambda: raised or seen.settled() == 30, "all rows settled", PATIENCE_S)
    assert raised == []
    assert len(commits) > 10
    assert seen.rows() == expected(bundle, given, [*predictions, *halves])


def test_a_restart_says_what_is_in_force_and_another_bundle_starts_from_its_own_adapter(
    kafka: dict[str, str], prefix: str, bundle: Bundle, seen: Seen, wait_for: WaitFor, tmp_path: Path
) -> None:
    file = tmp_path / "threshold_config.json"
    file.write_text('{"rollback_f1_drop": 0.03}')
    (first, *_), (half, other, *_) = batches(bundle, 1, conflicts=9)
    with thread(kafka, bundle, **settings(prefix, thresholds=file)) as raised:
        publish(kafka, prefix, [first._replace(headers=LOCKSTEP), half, other])
        wait_for(lambda: raised or seen.of("heal-requests"), "a heal is asked", PATIENCE_S)
        publish(kafka, prefix, [finished("heal-1", "v3")])
        wait_for(lambda: raised or seen.rows()["b0"].settled, "the heal is adopted", PATIENCE_S)
    assert raised == []
    with thread(kafka, msgspec.structs.replace(bundle, hash="e" * 64), **settings(prefix)) as raised:
        wait_for(lambda: raised or len(seen.events("service-started")) == 2, "up again", PATIENCE_S)
    assert raised == []
    control = seen.bodies("control")
    assert [c["version"] for c in control if c["setting"] == "active"] == ["v1", "v3", "v1"]
    in_force = [c["values"]["rollback_f1_drop"] for c in control if c["setting"] == "thresholds"]
    assert in_force == [0.03, 0.08]
    again = seen.events("adapter-activated")[-1]
    assert again["message"].startswith(f"v1 activated: bundle eeeeeeeeeeee takes the place of {bundle.hash[:12]}")
    assert len(seen.events("service-stopped")) == 2


def test_a_heal_that_nobody_does_is_given_up(
    kafka: dict[str, str], prefix: str, bundle: Bundle, seen: Seen, wait_for: WaitFor
) -> None:
    predictions, halves = batches(bundle, 1, conflicts=9)
    with thread(kafka, bundle, **settings(prefix, heal_timeout_s=0.3)) as raised:
        publish(kafka, prefix, [*predictions, *halves])
        wait_for(lambda: raised or (seen.rows() and seen.rows()["b0"].settled), "the row is settled", PATIENCE_S)
    assert raised == []
    assert seen.rows()["b0"].action == "heal-failed"
    assert seen.events("heal-failed")[0]["reason"] == "no outcome within 0.3 s"


def test_far_behind_it_reads_a_stated_share_and_says_so_until_it_has_caught_up(
    kafka: dict[str, str], prefix: str, bundle: Bundle, seen: Seen, wait_for: WaitFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "THIN_LOOK_S", 0.0)
    predictions, _ = batches(bundle, 400)
    publish(kafka, prefix, predictions)
    with thread(kafka, bundle, **settings(prefix, policy="observe", turn_max=20, thin_lag=100)) as raised:
        wait_for(
            lambda: raised or [e["share"] for e in seen.events("thinning-changed")][-1:] == [1.0],
            "it thins and reads all again", PATIENCE_S,
        )  # fmt: skip
        publish(kafka, prefix, [prediction("new", bundle=bundle.hash, features=len(bundle.features))])
        wait_for(lambda: raised or "new" in seen.rows(), "the next batch is judged", PATIENCE_S)
    assert raised == []
    assert seen.rows()["new"].thinning == 1.0
    first = seen.events("thinning-changed")[0]
    assert (first["share"], first["previous"], first["seed"]) == (0.5, 1.0, 0)
    assert first["lag"] > 100
    thinned = {name: r.thinning for name, r in seen.rows().items() if r.thinning < 1}
    assert 0 < len(thinned) < 400
    assert len(seen.rows()) < 401
    assert all(is_read(name.encode(), 0, share) for name, share in thinned.items())


def test_labels_far_ahead_of_their_predictions_wait_for_them(
    kafka: dict[str, str], prefix: str, bundle: Bundle, seen: Seen, wait_for: WaitFor
) -> None:
    predictions, halves = batches(bundle, 300)
    given = settings(prefix, policy="observe", turn_max=5, pending_max=20)  # predictions wait from 15 on: 14 and a turn
    publish(kafka, prefix, halves)
    with thread(kafka, bundle, **given) as raised:
        for first in range(0, 300, 50):
            publish(kafka, prefix, predictions[first : first + 50])
            wait_for(lambda n=first + 50: raised or seen.settled() == n, "all rows settled", PATIENCE_S)
    assert raised == []
    assert {r.action for r in seen.rows().values()} == {"none"}
    assert sum(r.labelled for r in seen.rows().values()) == 900


def test_predictions_far_ahead_wait_for_labels_that_are_there(
    kafka: dict[str, str], prefix: str, bundle: Bundle, seen: Seen, wait_for: WaitFor
) -> None:
    predictions, halves = batches(bundle, 300)
    publish(kafka, prefix, [*predictions, *halves])
    with thread(kafka, bundle, **settings(prefix, policy="observe", turn_max=5, pending_max=60)) as raised:
        wait_for(lambda: raised or seen.settled() == 300, "all rows settled", PATIENCE_S)
    assert raised == []
    assert {r.action for r in seen.rows().values()} == {"none"}


def test_fenced_is_raised_to_the_caller(
    kafka: dict[str, str], prefix: str, bundle: Bundle, seen: Seen, wait_for: WaitFor
) -> None:
    given = settings(prefix, policy="observe")
    with thread(kafka, bundle, **given) as first:
        wait_for(lambda: first or seen.events("service-started"), "the first is up", PATIENCE_S)
        with thread(kafka, bundle, **given) as second:
            wait_for(lambda: first or second, "one of them is fenced", PATIENCE_S)
            assert second == []
    assert [type(e) for e in first] == [Fenced]
