"""The same work as a Quix Streams application would do it, exactly once: decode, score with the active and the
frozen network, compare with the rule, publish predictions and conflicts. Runs in a virtual environment of its own,
since it pins older versions of packages that we use too.

Two ways: `plain` takes what the library and the model bring (its JSON, the PyTorch network, a message at a time);
`tuned` brings our own NumPy pass and orjson into it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch
from quixstreams import Application

from shared import bundle as bundles
from shared.adapters import first_adapter
from shared.forward import Folded, Network, probabilities
from shared.model import model_of


def main(bootstrap: str, topic: str, out: str, group: str, folder: str, way: str) -> None:
    torch.set_num_threads(1)
    bundle = bundles.load(Path(folder))
    network = Network.of(bundle)
    adapter = Folded.of(first_adapter(bundle), network)
    model = model_of(bundle).eval()
    app = Application(
        broker_address=bootstrap, consumer_group=group, auto_offset_reset="earliest", commit_interval=0.5,
        processing_guarantee="exactly-once", auto_create_topics=False, loglevel="WARNING",
        consumer_extra_config={"fetch.queue.backoff.ms": 10}, producer_extra_config={"retry.backoff.ms": 10},
    )  # fmt: skip
    plain = way == "plain"
    kind = "json" if plain else "bytes"
    conflicts_topic = app.topic(f"{out}-conflicts", value_serializer=kind)

    @torch.inference_mode()
    def by_torch(x: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        hidden = model.backbone(x)
        return (
            torch.sigmoid(model.head(hidden)[:, 0]).numpy(),
            torch.sigmoid(model.head(model.reflex(hidden))[:, 0]).numpy(),
        )

    def score(value: Any) -> dict[str, Any]:
        batch = value if plain else orjson.loads(value)
        x = np.array(batch["features"], dtype=np.float32)
        shadow, healed = by_torch(torch.from_numpy(x)) if plain else probabilities(x, network, [adapter])
        rule = bundle.rule_says_fraud(x)
        conflict = np.flatnonzero(rule & (healed < bundle.manifest.thresholds.conflict))
        ids = batch["transaction_ids"]
        prediction = {
            "batch_id": batch["batch_id"], "transaction_ids": ids, "probability": healed, "shadow_probability": shadow,
            "adapter_version": adapter.version, "bundle": bundle.hash, "created_at": batch["created_at"],
            "rule": rule.astype(np.int8), "flag": (healed > 0.5).astype(np.int8), "conflicts": len(conflict),
            "feature_sums": x.sum(0), "feature_squares": (x * x).sum(0),
        }  # fmt: skip
        conflicting = {
            "batch_id": batch["batch_id"], "transaction_ids": [ids[i] for i in conflict],
            "features": x[conflict], "probability": healed[conflict],
        }  # fmt: skip
        if plain:
            listed = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in prediction.items()}
            clash = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in conflicting.items()}
            return {"prediction": listed, "conflicts": clash if len(conflict) else None}
        dump = orjson.OPT_SERIALIZE_NUMPY
        return {
            "prediction": orjson.dumps(prediction, option=dump),
            "conflicts": orjson.dumps(conflicting, option=dump) if len(conflict) else None,
        }

    scored = app.dataframe(app.topic(topic, value_deserializer=kind)).apply(score)
    scored.apply(lambda v: v["prediction"]).to_topic(app.topic(out, value_serializer=kind))
    scored.filter(lambda v: v["conflicts"] is not None).apply(lambda v: v["conflicts"]).to_topic(conflicts_topic)
    app.run()


if __name__ == "__main__":
    main(*sys.argv[1:7])
