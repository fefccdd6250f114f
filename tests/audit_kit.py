"""A small pipeline's topics made by hand: six batches, a bad one, two heals, a rollback. For tests of the auditor."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from audit.log import GROUPS, NAMES, Name, Record, Span
from audit.measures import SCORES, expected, z_score
from audit.network import Adapter, Bundle, first_adapter, probabilities, read_bundle

D, H, ROWS = 3, 4, 20
PREFIX = "shop"
LIMITS = {"rollback_f1_drop": 0.05, "rollback_acc_drop": 0.1, "health_window": 5, "fidi_threshold": 9.0,
          "conflict_min": 99, "heal_steps": 5, "heal_lr": 0.003}  # fmt: skip
HEALED = {3: ("v1", "v3", 0.95), 5: ("v3", "v5", 0.2)}  # batch: base, post-heal version, its F1 and accuracy


class Pipe:
    """The topics as lists; an audit.log.Log over them. Offsets have holes, as transactions leave them."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle, self.now_ms = bundle, 1_000_000
        self.records: dict[Name, list[Record]] = {name: [] for name in NAMES}
        self.groups: dict[tuple[str, Name], int] = {}
        self.lows: dict[Name, int] = {}

    def topic(self, name: Name) -> str:
        return f"{PREFIX}.{name}"

    def spans(self, name: Name) -> Mapping[int, Span]:
        end = max((r.offset for r in self.records[name]), default=-1) + 2
        return {0: Span(self.lows.get(name, 0), end, end)}

    def read(self, name: Name, partition: int | None = None) -> Iterator[Record]:
        yield from self.records[name]

    def get(self, name: Name, partition: int, offset: int) -> Record | None:
        return next((r for r in self.records[name] if r.offset == offset), None)

    def committed(self, group: str, name: Name) -> Mapping[int, int]:
        assert name in GROUPS[group]
        return {0: self.groups.get((group, name), self.spans(name)[0].end)}

    def add(self, name: Name, key: str, body: Any, headers: Mapping[str, str] | None = None) -> Record:
        """body: bytes as they are, anything else as JSON."""
        value = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        self.now_ms += 100
        offset = max((r.offset for r in self.records[name]), default=-2) + 2
        record = Record(
            self.topic(name), 0, offset, key.encode(), value,
            {k: v.encode() for k, v in (headers or {}).items()}, self.now_ms,
        )  # fmt: skip
        self.records[name].append(record)
        return record

    def say(self, kind: str, service: str, **facts: Any) -> Record:
        return self.add("events", service, {"at": "t", "kind": kind, "message": kind, "service": service, **facts})

    def edit(self, name: Name, i: int, change: Callable[[dict[str, Any]], object]) -> None:
        """Change the JSON of the i-th record of a topic."""
        record = self.records[name][i]
        body = json.loads(record.value or b"")
        change(body)
        self.records[name][i] = record._replace(value=json.dumps(body).encode())

    def repeat(self, name: Name, i: int) -> None:
        """The same once more, at the end."""
        again = self.records[name][i]
        self.records[name].append(again._replace(offset=self.records[name][-1].offset + 2, at_ms=self.now_ms + 100))

    def drop(self, name: Name, i: int) -> None:
        """As if it had never been committed."""
        del self.records[name][i]

    def find(self, name: Name, **wanted: Any) -> int:
        """Index of the first record whose JSON has these values."""
        for i, record in enumerate(self.records[name]):
            body = json.loads(record.value or b"{}")
            if all(body.get(k) == v for k, v in wanted.items()):
                return i
        raise LookupError(f"{name}: {wanted}")


def make_bundle(folder: Path) -> Bundle:
    rng = np.random.default_rng(7)

    def draw(*shape: int) -> Any:
        return rng.normal(0, 1, shape).astype(np.float32)

    weights = save({
        "backbone.0.weight": draw(H, D), "backbone.0.bias": draw(H), "backbone.2.weight": draw(H, H),
        "backbone.2.bias": draw(H), "head.weight": draw(1, H), "head.bias": draw(1) - 1, "reflex.0.weight": draw(H, H),
        "reflex.0.bias": draw(H), "reflex.2.weight": np.zeros((H, H), np.float32),
        "reflex.2.bias": np.zeros(H, np.float32), "reflex.scale": np.array(0.1, np.float32),
    })  # fmt: skip
    features = ["a", "b", "c"]
    manifest = {
        "features": features, "hidden": H, "rule": {"feature": "a", "op": "<", "threshold": 0.5}, "watched": "a",
        "thresholds": {"flag": 0.5, "conflict": 0.3}, "costs": {"false_alarm": 1.0, "missed_fraud": 5.0},
        "clean": {"accuracy": 0.9, "precision": 0.8, "recall": 0.7, "f1": 0.75},
        "statistics": {f: {"mean": 0.0, "deviation": 1.0} for f in features},
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bundle.json").write_text(json.dumps(manifest))
    (folder / "weights.safetensors").write_bytes(weights)
    return read_bundle(folder)


def adapter_bytes(bundle: Bundle, version: str) -> bytes:
    rng = np.random.default_rng(int(version[1:]))
    own = first_adapter(bundle).tensors
    tensors = {k: np.asarray(v + rng.normal(0, 0.3, v.shape), np.float32) for k, v in sorted(own.items())}
    align = {"align.shift": np.zeros(D, np.float32), "align.scale": np.ones(D, np.float32)}
    return save({**tensors, **align, "logit_shift": np.array(0.25, np.float32)})


def publish(pipe: Pipe, version: str, parent: str, request: str, **more: str) -> None:
    value = adapter_bytes(pipe.bundle, version)
    headers = {
        "version": version, "parent": parent, "bundle": pipe.bundle.hash, "request": request, "stage": "post-heal",
        "sha256": hashlib.sha256(value).hexdigest(), **more,
    }  # fmt: skip
    pipe.add("adapters", version, value, headers)


def make_pipe(folder: Path, *, lockstep: bool = False) -> Pipe:
    """Everything holds in it. lockstep: each batch but the first names the version that the row before it gave."""
    bundle = make_bundle(folder)
    pipe, rng = Pipe(bundle), np.random.default_rng(3)
    pipe.say("service-started", "scorer", slot="0")
    pipe.say("service-started", "monitor", slot="0", policy="reference", label_patience=0)
    _control(pipe, "active", version="v1", previous="v1")
    _control(pipe, "thresholds", values={**LIMITS, "conflict_min": 1})
    letter = pipe.add("transactions", "bad", b"no JSON at all")
    source = {"source.topic": letter.topic, "source.partition": "0", "source.offset": str(letter.offset)}
    pipe.add("dead-letters", letter.where, letter.value, {**source, "reason": "not JSON", "service": "scorer"})
    active, means, window = "v1", list[float](), list[tuple[float, float]]()
    for k in range(1, 7):
        headers = {"lockstep": "1", **({"adapter": active} if k > 1 else {})} if lockstep else {}
        body, adapter = _batch(pipe, k, active, rng, headers)
        labels = [int(n) for n in rng.integers(0, 2, ROWS)]
        pipe.add("labels", f"b{k}", {"batch_id": f"b{k}", "transaction_ids": body["transaction_ids"], "labels": labels})
        want = expected(("", 0, 0), body, False, 0, [(0, body["transaction_ids"], labels)], bundle)
        means.append(want.mean)
        row = {
            "batch_idx": k, "batch_id": f"b{k}", "timestamp": "2026", "rows": ROWS, "z_score": z_score(means, bundle),
            "n_conflicts": body["conflicts"], "flagged_share": sum(body["flag"]) / ROWS, "adapter_version": active,
            "labelled": 0, "state": "HEALTHY", "action": "none", "rolled_back": False, "thinning": 1.0,
            "settled": False, "next_version": active, **dict.fromkeys(SCORES), "accuracy_post_heal": None,
            "f1_post_heal": None, "acc_lift_post_heal": None,
            **{f"{n}_baseline": v for n, v in bundle.manifest["clean"].items()},
        }  # fmt: skip
        pipe.add("metrics", f"b{k}", row)
        row |= {**dict(zip(SCORES, want.options[0], strict=True)), "labelled": ROWS}
        row["acc_lift_post_heal"] = row["acc_lift"]
        if k in HEALED:
            active = _heal(pipe, k, row, window)
        else:
            window.append((row["f1_healed"], row["accuracy_healed"])) if window else None
            row |= {"settled": True}
        pipe.add("metrics", f"b{k}", row)
        pipe.add("state", "core", {"turn": k, "batches": k, "active": active})
        assert adapter.version == body["adapter_version"]
    return pipe


def _control(pipe: Pipe, setting: str, **fields: Any) -> None:
    pipe.add("control", setting, {"setting": setting, "at": "t", "by": "monitor", "reason": "test", **fields})


def _batch(
    pipe: Pipe, k: int, version: str, rng: np.random.Generator, headers: dict[str, str]
) -> tuple[dict[str, Any], Adapter]:
    """A transactions record with its answer."""
    bundle, ids = pipe.bundle, [f"b{k}-{i}" for i in range(ROWS)]
    x = rng.normal(0, 1, (ROWS, D)).astype(np.float32)
    features = x.astype(np.float64).tolist()
    asked = {"batch_id": f"b{k}", "transaction_ids": ids, "features": features, "created_at": "2026"}
    record = pipe.add("transactions", f"b{k}", asked, headers)
    made = [r for r in pipe.records["adapters"] if r.key == version.encode()]
    adapter = Adapter(version, load(made[0].value or b"")) if made else first_adapter(bundle)
    shadow, p = (q.astype(np.float32).astype(np.float64) for q in probabilities(x, bundle, [adapter]))
    rule = bundle.rule(x)
    conflict = rule & (p < 0.3)
    source = {"topic": record.topic, "partition": 0, "offset": record.offset}
    body = {
        "batch_id": f"b{k}", "transaction_ids": ids, "probability": p.tolist(), "shadow_probability": shadow.tolist(),
        "adapter_version": version, "bundle": bundle.hash, "source": source, "created_at": "2026",
        "rule": rule.astype(int).tolist(), "flag": (p > 0.5).astype(int).tolist(), "conflicts": int(conflict.sum()),
        "feature_sums": x.astype(np.float64).sum(axis=0).tolist(),
        "feature_squares": (x.astype(np.float64) ** 2).sum(axis=0).tolist(),
    }  # fmt: skip
    pipe.add("predictions", f"b{k}", body, {k: v for k, v in headers.items() if k == "lockstep"})
    if conflict.any():
        at = np.flatnonzero(conflict)
        told = {
            "batch_id": f"b{k}", "transaction_ids": [ids[i] for i in at], "features": [features[i] for i in at],
            "probability": p[at].tolist(), "adapter_version": version, "source": source, "created_at": "2026",
        }  # fmt: skip
        pipe.add("conflicts", f"b{k}", told, {})
    return body, adapter


def _heal(pipe: Pipe, k: int, row: dict[str, Any], window: list[tuple[float, float]]) -> str:
    """The heal that batch k asks for; its row in place. Returns the version active after it."""
    base, version, worth = HEALED[k]
    request, about = f"heal-{k}", {"batch_id": f"b{k}", "batch_idx": k}
    pre = f"v{int(version[1:]) - 1}"
    pipe.say("heal-requested", "monitor", request_id=request, base_version=base, **about)
    spans = {
        name: [{"topic": pipe.topic(name), "partition": 0, "start": (o := pipe.records[name][-1].offset), "end": o + 1}]
        for name in ("transactions", "labels")
    }  # fmt: skip
    pipe.add("heal-requests", request, {"request_id": request, "policy": "reference", "batch_id": f"b{k}", **spans})
    publish(pipe, pre, base, request)
    publish(pipe, version, pre, request)
    facts = {"accuracy_after": worth, "f1_after": worth, "pre_version": pre, "post_version": version}
    pipe.say("heal-finished", "healer", request_id=request, **facts, **about)
    _control(pipe, "active", version=version, previous=base, batch_id=f"b{k}")
    pipe.say("adapter-activated", "monitor", request_id=request, version=version, previous=base, **about)
    window.append((worth, worth))
    row |= {"accuracy_post_heal": worth, "f1_post_heal": worth, "action": "heal", "settled": True}
    row |= {"acc_lift_post_heal": worth - row["accuracy_shadow"], "next_version": version}
    if len(window) < 3:
        return version
    f1, accuracy = (sum(s[i] for s in window) / len(window) for i in (0, 1))
    _control(pipe, "active", version="v3", previous=version, batch_id=f"b{k}")
    mean = {"mean_f1": f1, "mean_accuracy": accuracy, "baseline_f1": 0.95, "baseline_accuracy": 0.95}
    pipe.say("rolled-back", "monitor", from_version=version, to_version="v3", f1=0.95, **mean, **about)
    row |= {"action": "heal+rollback", "rolled_back": True, "next_version": "v3"}
    return "v3"
