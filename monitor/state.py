"""What the monitor knows, as keyed JSON parts of the compacted `state` topic.

    core            counters, active version, heal under way, health, share read
    fidi            the newest batch means of every feature
    guard           policy guarded: its states and the open block
    block/N         sums of one of the newest closed blocks, under each state
    learning        what labels have shown, and what is learned from them
    registry/V      a post-heal adapter that a rollback may choose
    pending/ID      a batch that waits for labels or for the outcome of its heal
    early/ID        labels that came before their prediction
    done/N          ids of the batches that need nothing more, 64 a part, so that repeats are known as such

A turn writes the parts it changed, a tombstone for each that is gone, in the transaction of its offsets.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping
from typing import Literal

import msgspec

from monitor.fidi import Window
from monitor.health import Entry, Health
from monitor.parts import Guarded, Learning, dumped, restored
from shared.errors import OperatorError
from shared.records import FIRST_VERSION, Metrics, Source

DONE_PART, DONE_PARTS = 64, 128
_GUARDED = ("guard", "block/", "learning")  # parts of policy guarded
NO_LABEL = 255


class Row(Metrics, frozen=True, kw_only=True, omit_defaults=True):
    """A metrics row as the state keeps it: what still has its default is left out (records.encode writes it)."""


class Batch(msgspec.Struct, kw_only=True):
    """A batch that is not done. probability, shadow: float32 little endian (n,). labels: a byte each, 255 where
    none came. joined: the labels records that gave at least one. judged: it had its chance to ask for a heal.
    Policy guarded: audited, counted: a byte each, 1 where the label came from the audit, was counted as evidence."""

    row: Row
    ids: list[str]
    probability: bytes
    shadow: bytes
    source: Source
    drifting: bool
    lockstep: bool
    labels: bytes
    joined: list[Source] = []
    judged: bool = False
    audited: bytes = b""
    counted: bytes = b""

    @property
    def complete(self) -> bool:
        return NO_LABEL not in self.labels


class EarlyLabels(msgspec.Struct, frozen=True, kw_only=True):
    """One labels record that waits for its prediction."""

    source: Source
    transaction_ids: list[str]
    labels: list[int]
    audit: bool = False


class Early(msgspec.Struct, kw_only=True):
    """All that came early for one batch. order: a running number. since: predictions read of the partition with the
    number of the first record's when that came. size: bytes of the records it came in."""

    order: int
    since: int
    size: int = 0
    records: list[EarlyLabels] = []


class Heal(msgspec.Struct, frozen=True, kw_only=True):
    """The request under way. purpose: heal is the published one's, the others are policy guarded's."""

    request_id: str
    batch_id: str
    base_version: str
    purpose: Literal["heal", "diagnose", "learn"] = "heal"


class Core(msgspec.Struct, kw_only=True):
    """turn: transactions that wrote this state. batches: batch_idx of the newest. drifting_since: batch_idx, None while
    not drifting. crossed: batch_idx from which on FIDI says otherwise, not told yet; crossed_rows: rows since then.
    share: of the batches that is read. read: predictions so far, by partition. done: ids ever retired. earlies:
    batches ever held early. counters: what was dropped, by why."""

    bundle: str
    turn: int = 0
    batches: int = 0
    active: str = FIRST_VERSION
    drifting_since: int | None = None
    crossed: int | None = None
    crossed_rows: int = 0
    heal: Heal | None = None
    health: Health = Health()
    share: float = 1.0
    read: dict[int, int] = {}
    done: int = 0
    earlies: int = 0
    counters: dict[str, int] = {}
    policy: str = ""
    thresholds: dict[str, float] = {}


class State:
    """All parts decoded, and which of them the topic does not hold yet."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.window: Window = []
        self.guarded: Guarded | None = None
        self.learning = Learning()
        self.registry: dict[str, Entry] = {}
        self.pending: OrderedDict[str, Batch] = OrderedDict()  # by batch_idx, oldest first
        self.early: OrderedDict[str, Early] = OrderedDict()  # oldest first
        self.unjudged: deque[str] = deque()  # ids by batch_idx, of use with label_patience; may hold judged ones
        self.done_parts: dict[int, list[str]] = {}
        self.done_ids: set[str] = set()
        self.touched: set[str] = set()
        # Of the parts that are encoded each turn the bytes, of the others only that they are there.
        self._stored: dict[str, bytes] = {}

    def count(self, what: str, n: int = 1) -> None:
        """Add to a counter of the core."""
        if n:
            self.core.counters[what] = self.core.counters.get(what, 0) + n

    def put(self, batch: Batch) -> None:
        """Keep a batch, or note that it changed."""
        self.pending[batch.row.batch_id] = batch
        self.touched.add(f"pending/{batch.row.batch_id}")

    def retire(self, batch_id: str) -> None:
        """Drop a batch that needs nothing more; its id stays known for the next 8,000."""
        del self.pending[batch_id]
        self.touched.add(f"pending/{batch_id}")
        part = self.core.done // DONE_PART
        self.core.done += 1
        self.done_parts.setdefault(part, []).append(batch_id)
        self.done_ids.add(batch_id)
        self.touched.add(f"done/{part}")
        if len(self.done_parts) > DONE_PARTS:
            oldest = min(self.done_parts)
            self.done_ids.difference_update(self.done_parts.pop(oldest))
            self.touched.add(f"done/{oldest}")

    def keep_early(self, batch_id: str, record: EarlyLabels, size: int) -> None:
        """Hold a labels record until its prediction comes."""
        early = self.early.get(batch_id)
        if early is None:
            self.core.earlies += 1
            early = self.early[batch_id] = Early(
                order=self.core.earlies, since=self.core.read.get(record.source.partition, 0)
            )
        early.size += size
        early.records = [*early.records, record]
        self.touched.add(f"early/{batch_id}")

    def pop_early(self, batch_id: str) -> list[EarlyLabels]:
        """The labels records held for a batch, in the order they came."""
        early = self.early.pop(batch_id, None)
        if early is None:
            return []
        self.touched.add(f"early/{batch_id}")
        return early.records

    def changes(self) -> dict[str, bytes | None]:
        """Parts to write so that the topic holds this state; None: a tombstone. They count as written after this
        call: when the transaction fails, the whole state is read again."""
        out: dict[str, bytes | None] = {}
        fixed = {"core": msgspec.json.encode(self.core), "fidi": msgspec.json.encode(self.window)}
        if self.guarded is not None:
            fixed |= {"learning": msgspec.json.encode(self.learning), **dumped(self.guarded)}
        self.touched |= {k for k in self._stored if k.startswith(_GUARDED)}
        self.touched -= fixed.keys()
        for key, value in fixed.items():
            if self._stored.get(key) != value:
                out[key] = self._stored[key] = value
        for key in self.touched:
            part = self._part(key)
            if part is not None:
                out[key] = msgspec.json.encode(part)
                self._stored[key] = b""
            elif self._stored.pop(key, None) is not None:  # else it came and went within the turn
                out[key] = None
        self.touched.clear()
        return out

    def _part(self, key: str) -> Batch | Early | Entry | list[str] | None:
        kind, _, name = key.partition("/")
        if kind == "pending":
            return self.pending.get(name)
        if kind == "early":
            return self.early.get(name)
        if kind == "registry":
            return self.registry.get(name)
        return self.done_parts.get(int(name)) if kind == "done" else None

    def replaced(self, bundle: str) -> State:
        """A fresh state for another bundle: batch_idx counts on, every part of this one is forgotten."""
        fresh = State(Core(bundle=bundle, turn=self.core.turn, batches=self.core.batches, share=self.core.share))
        fresh._stored = self._stored
        fresh.touched = set(self._stored) - {"core", "fidi"}
        return fresh


def load(parts: Mapping[str, bytes]) -> State | None:
    """The state that the topic holds, None when it holds none. Raises OperatorError for one it cannot read."""
    if "core" not in parts:
        return None
    try:
        state = State(msgspec.json.decode(parts["core"], type=Core))
        state.window = msgspec.json.decode(parts["fidi"], type=Window)
        for key, value in parts.items():
            kind, _, name = key.partition("/")
            if kind == "pending":
                state.pending[name] = msgspec.json.decode(value, type=Batch)
            elif kind == "early":
                state.early[name] = msgspec.json.decode(value, type=Early)
            elif kind == "registry":
                state.registry[name] = msgspec.json.decode(value, type=Entry)
            elif kind == "done":
                state.done_parts[int(name)] = msgspec.json.decode(value, type=list[str])
        if "guard" in parts:
            state.guarded = restored(parts)
            state.learning = msgspec.json.decode(parts["learning"], type=Learning)
    except (msgspec.DecodeError, ValueError, KeyError, RecursionError) as exc:
        raise OperatorError(
            f"the monitor's state cannot be read ({exc}): it was written by another version of this program. "
            "Run that version, or delete the state topic to start again from v1"
        ) from exc
    state.pending = OrderedDict(sorted(state.pending.items(), key=lambda kv: kv[1].row.batch_idx))
    state.early = OrderedDict(sorted(state.early.items(), key=lambda kv: kv[1].order))
    state.unjudged = deque(state.pending)
    state.done_parts = dict(sorted(state.done_parts.items()))
    state.done_ids = {i for part in state.done_parts.values() for i in part}
    state._stored = {k: v if k in ("core", "fidi") or k.startswith(_GUARDED) else b"" for k, v in parts.items()}
    return state
