"""The same work as a Quix Streams application would do it, exactly once: decode and check every message by contract,
score with the active and the frozen network, compare with the rule, publish predictions, conflicts and dead letters.
Runs in a virtual environment of its own, since it pins older versions of packages that we use too.

Two ways: `plain` takes the definition of a valid message (shared.records) and the PyTorch network, a message at a time;
`tuned` calls our own scorer's decoding, pass and encoding instead, so that only the loop around them differs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
import torch
from quixstreams import Application

from scorer.decode import Decoder
from scorer.score import Job, Scored, score
from shared import bundle as bundles
from shared.adapters import first_adapter
from shared.bundle import Bundle
from shared.errors import Refused
from shared.forward import Folded, Network
from shared.model import model_of
from shared.records import Transactions, check_batch, decode

SOURCE: dict[str, str | int] = {"topic": "bench", "partition": 0, "offset": 0}
Answers = dict[str, bytes]


def main(bootstrap: str, topic: str, out: str, group: str, folder: str, way: str) -> None:
    torch.set_num_threads(1)
    bundle = bundles.load(Path(folder))
    answer = plain(bundle) if way == "plain" else tuned(bundle)
    app = Application(
        broker_address=bootstrap, consumer_group=group, auto_offset_reset="earliest", commit_interval=0.5,
        processing_guarantee="exactly-once", auto_create_topics=False, loglevel="WARNING",
        state_dir=Path(folder).parent / "quix",
        consumer_extra_config={"fetch.queue.backoff.ms": 10},
        producer_extra_config={"retry.backoff.ms": 10, "compression.type": "lz4"},
    )  # fmt: skip

    def answered(value: bytes) -> Answers:
        try:
            return answer(value)
        except Refused:
            return {"dead-letters": value}

    answers = app.dataframe(app.topic(topic, value_deserializer="bytes")).apply(answered)
    for name, to in (("prediction", out), ("conflicts", f"{out}-conflicts"), ("dead-letters", f"{out}-dead-letters")):
        has, pick = _has(name), _pick(name)
        answers.filter(has).apply(pick).to_topic(app.topic(to, value_serializer="bytes"))
    app.run()


def plain(bundle: Bundle) -> Callable[[bytes], Answers]:
    """As the contract and the model are written."""
    model, d = model_of(bundle).eval(), len(bundle.features)

    @torch.inference_mode()
    def answer(value: bytes) -> Answers:
        batch = decode(Transactions, value)
        check_batch(batch, d)
        x = np.array(batch.features, dtype=np.float32)
        hidden = model.backbone(torch.from_numpy(x))
        shadow = torch.sigmoid(model.head(hidden)[:, 0]).numpy()
        healed = torch.sigmoid(model.head(model.reflex(hidden))[:, 0]).numpy()
        rule = bundle.rule_says_fraud(x)
        conflict = np.flatnonzero(rule & (healed < bundle.manifest.thresholds.conflict))
        ids = batch.transaction_ids
        both = {"batch_id": batch.batch_id, "adapter_version": "v1", "source": SOURCE, "created_at": batch.created_at}
        prediction = {
            **both, "transaction_ids": ids, "probability": healed, "shadow_probability": shadow, "bundle": bundle.hash,
            "rule": rule.astype(np.int8), "flag": (healed > bundle.manifest.thresholds.flag).astype(np.int8),
            "conflicts": len(conflict), "feature_sums": x.sum(0), "feature_squares": (x * x).sum(0),
        }  # fmt: skip
        conflicting = {
            **both, "transaction_ids": [ids[i] for i in conflict], "features": x[conflict],
            "probability": healed[conflict],
        }  # fmt: skip
        answers = {"prediction": orjson.dumps(prediction, option=orjson.OPT_SERIALIZE_NUMPY)}
        if len(conflict):
            answers["conflicts"] = orjson.dumps(conflicting, option=orjson.OPT_SERIALIZE_NUMPY)
        return answers

    return answer


def tuned(bundle: Bundle) -> Callable[[bytes], Answers]:
    """By our scorer's own parts."""
    network = Network.of(bundle)
    adapter, decoder = Folded.of(first_adapter(bundle), network), Decoder(len(bundle.features))

    def answer(value: bytes) -> Answers:
        [scored] = score([Job(decoder.decode(value), SOURCE, adapter)], bundle, network, None)
        if not isinstance(scored, Scored):
            raise scored
        answers = {"prediction": scored.prediction}
        if scored.conflicts is not None:
            answers["conflicts"] = scored.conflicts
        return answers

    return answer


def _has(name: str) -> Callable[[Answers], bool]:
    return lambda answers: name in answers


def _pick(name: str) -> Callable[[Answers], bytes]:
    return lambda answers: answers[name]


if __name__ == "__main__":
    main(*sys.argv[1:7])
