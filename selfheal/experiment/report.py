"""report.md: our numbers beside the published ones; report_honest.py adds the rows that those lack."""

from __future__ import annotations

from collections.abc import Sequence

from selfheal.experiment.ceiling import Ceiling
from selfheal.experiment.explain import Compared
from selfheal.experiment.markdown import middle, number, paragraph, table
from selfheal.experiment.published import BATCH_ROWS, COUNTS, FIGURES, STRESS_RESTORED
from selfheal.experiment.report_honest import figures, honest, idle
from selfheal.experiment.rollbacks import Rollback
from selfheal.experiment.summary import Numbers, Parameters, at

KINDS = ("accuracy", "precision", "recall", "f1")
STAGE_TEXT = {
    "clean": "clean baseline",
    "drift": "drift, not healed (the frozen shadow)",
    "healed": "healed",
    "healed_as_published": "healed, as published (stream and table share rows)",
}
BATCH_TEXT = (
    ("lift as published: the adapter just fitted, on the rows it was fitted to; mean", ("lift", "mean"), 3),
    ("- smallest", ("lift", "min"), 2),
    ("- largest", ("lift", "max"), 2),
    ("- batches where it is positive", ("lift", "positive_batches"), 0),
    ("lift as served: the adapter fixed before the labels were known; mean", ("lift_served", "mean"), 3),
    ("- batches where it is positive", ("lift_served", "positive_batches"), 0),
    ("accuracy won on the table's rows", ("recovery",), 3),
    ("registry entries", ("snapshots",), 0),
    ("rollbacks", ("rollbacks",), 0),
)


def report(
    summary: Numbers, parameters: Parameters, best: Ceiling, *, command: str, rollbacks: Sequence[Rollback] = (),
    compared: Compared | None = None, stress: bool = False,
) -> str:  # fmt: skip
    """The whole text. rollbacks: of one seed's clean variant. compared: with several seeds."""
    many = len(summary["seeds"]) > 1
    parts = [
        [f"# The reference experiment over Kafka{', under stress' if stress else ''}", "", f"`{command}`", ""],
        _opening(summary, parameters, many),
        _rollbacks(rollbacks, parameters, stress) if not many else [],
        _stages(summary, parameters, many),
        _batches(summary, parameters),
        honest(summary, parameters, best),
        figures(compared) if compared else [],
        idle(summary, parameters),
        _files(many),
    ]
    return "\n".join(line for part in parts for line in part)


def _opening(summary: Numbers, parameters: Parameters, many: bool) -> list[str]:
    seeds, stages = summary["seeds"], summary["stages"]
    who = f"seeds {seeds[0]} to {seeds[-1]}, medians and 90% intervals" if many else f"seed {seeds[0]}"
    drift, healed = middle(stages["drift"]["accuracy"]), middle(stages["healed"]["accuracy"])
    f1_drift, f1_healed = middle(stages["drift"]["f1"]), middle(stages["healed"]["f1"])
    return [
        *paragraph(f"""{parameters.batches} batches of {BATCH_ROWS} transactions, {who}; normals moved by
            -{parameters.drift_strength:g} on V14 from the first batch on. Every seed ran through four processes
            (producer, scorer, healer, monitor) that share nothing but Kafka, once for each variant, in lockstep,
            with the policy `reference`."""),
        *paragraph(f"""On 1,000 drifted rows healing took accuracy from {drift:.1%} to {healed:.1%} and F1 from
            {f1_drift:.3f} to {f1_healed:.3f}. Flagging nobody at all has
            {middle(summary["aside"]["all_negative"]["accuracy"]):.1%} accuracy there: the ceilings below belong to
            the lift."""),
    ]  # fmt: skip


def _stages(summary: Numbers, parameters: Parameters, many: bool) -> list[str]:
    compare = parameters.as_published
    published = {figure.path[1:]: figure.value for figure in FIGURES if figure.path[0] == "stages"}
    head = ["stage", "accuracy", "precision", "recall", "F1", *([] if many else ["TP/TN/FP/FN"])]
    rows = []
    for stage, text in STAGE_TEXT.items():
        ours = summary["stages"][stage]
        counts = [] if many else ["/".join(str(ours[k]) for k in ("tp", "tn", "fp", "fn"))]
        rows.append([text, *(number(ours[kind]) for kind in KINDS), *counts])
        if compare and (stage, "accuracy") in published:
            known = COUNTS.get("healed" if stage == "healed_as_published" else stage)
            counts = [] if many else ["/".join(map(str, known)) if known else "not published"]
            rows.append(["*published*", *(f"*{published[stage, kind]:.3f}*" for kind in KINDS), *counts])
    return [
        "## After the last batch, on rows that training never saw",
        "",
        *table(head, rows),
        *paragraph("""`healed` streams other rows than it is scored on. The published run streamed batches drawn from
            the very rows of this table; `healed, as published` does the same, to compare with it. The shadow is the
            frozen network itself, so its row is the drift's."""),
    ]  # fmt: skip


def _batches(summary: Numbers, parameters: Parameters) -> list[str]:
    compare = parameters.as_published
    published = {figure.path[1:]: figure.value for figure in FIGURES if figure.path[0] == "as_published"}
    rows = []
    for name, path, digits in BATCH_TEXT:
        known = [f"{published[path]:.{digits}f}" if path in published else "-"] if compare else []
        ours = (number(at(variant, path), digits) for variant in (summary, summary["as_published"]))
        rows.append([name, *ours, *known])
    head = ["accuracy over the frozen shadow", "clean stream", "as published", *(["published"] if compare else [])]
    return ["## Over the batches", "", *table(head, rows)]


def _rollbacks(rollbacks: Sequence[Rollback], parameters: Parameters, stress: bool) -> list[str]:
    rule = f"""from 3 heals on, mean F1 of the last 5 more than {parameters.rollback_f1_drop:g} below the first heal's,
        or mean accuracy more than 0.10 below"""
    if not rollbacks:
        return ["## Rollbacks", "", *paragraph(f"None. The rule: {rule}.")]
    first = rollbacks[0]
    story = f"""At batch {first.batch_idx} {first.from_version} was taken back and {first.to_version} of batch
        {first.restored_batch_idx} restored, F1 {first.f1:.3f}."""
    if stress:
        story += f" Published under stress: restores {STRESS_RESTORED}."
    rows = [
        [
            str(r.batch_idx), r.from_version, r.to_version, str(r.restored_batch_idx), f"{r.f1:.3f}",
            r.served_next or "(last batch)", "yes" if r.kept else "NO",
        ]
        for r in rollbacks
    ]  # fmt: skip
    head = ["at batch", "taken back", "restored", "fitted at batch", "its F1 there", "served next", "as the event says"]
    return ["## Rollbacks", "", *paragraph(f"{story} The rule: {rule}."), *table(head, rows)]


def _files(many: bool) -> list[str]:
    if many:
        text = """`seed-N/` is each seed's own run folder, with its report; `summary.json` has the medians and
            intervals, `seeds.csv` a row per seed, `further-seeds.csv` the same for the simulated ones."""
    else:
        text = """`metrics.csv` has a row per batch, `events.json` drift, heals, activations and rollbacks,
            `threshold_config.json` the thresholds in force, `plots/` eight pictures, `summary.json` these numbers,
            `bundle/` the model, `logs/` what the processes said, `as-published/` the same of the other variant. The
            same seed gives the same metrics.csv, byte for byte."""
    return ["## Files", "", *paragraph(text)]
