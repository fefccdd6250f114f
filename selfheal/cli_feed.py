"""`selfheal produce`: what enters the pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from selfheal.cli_options import DATA_DIR, SERVICES, BundleDir, DataDir, Prefix, slot_option

app = typer.Typer()
GENTLE = 5.0  # batches/s: enough to see, and a forgotten producer fills no disk
STREAM, DRIFT, LABELS, CSV = "The stream", "Drift", "Labels", "From a file"


@app.command(rich_help_panel=SERVICES)
def produce(
    prefix: Prefix = "",
    slot: Annotated[str, slot_option("PRODUCER_SLOT", "This producer's name.")] = "0",
    batches: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", show_default="until Ctrl-C", help="End after N.", rich_help_panel=STREAM),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            min=0, metavar="R", show_default="5; lockstep: as fast as it goes", rich_help_panel=STREAM,
            help="Batches per second. 0: as fast as it goes.",
        ),
    ] = None,
    lockstep: Annotated[
        bool,
        typer.Option(
            "--lockstep", rich_help_panel=STREAM,
            help="Send a batch when the last one is settled: deterministic, the same seed gives the same metrics.",
        ),
    ] = False,
    rows: Annotated[
        int, typer.Option(min=1, max=1_000, metavar="N", help="Transactions in a batch.", rich_help_panel=STREAM)
    ] = 100,
    seed: Annotated[
        int, typer.Option(min=0, help="Of everything random here; batch k is the same rows.", rich_help_panel=STREAM)
    ] = 42,
    run: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", show_default="a fresh one; lockstep: s<seed>", rich_help_panel=STREAM,
            help="First part of every batch id.",
        ),
    ] = None,
    scenario: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", rich_help_panel=DRIFT,
            help="A named drift: `reference` (the published one) or S0..S15. See --list-scenarios.",
        ),
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option(show_default="2.2", help="How far `reference` moves normals on V14.", rich_help_panel=DRIFT),
    ] = None,
    drift: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STEP", rich_help_panel=DRIFT,
            help="A drift step; give several to compose them. shift:V14:-2.2:class=normal,from=13 moves normals from "
            "batch 13 on; a wrong one shows the grammar.",
        ),
    ] = None,
    list_scenarios: Annotated[
        bool, typer.Option("--list-scenarios", help="Show the named drifts and end.", rich_help_panel=DRIFT)
    ] = False,
    label_delay: Annotated[
        str,
        typer.Option(
            metavar="N|never", rich_help_panel=LABELS,
            help="Labels follow their batch by N batches (0: at once), or are never sent.",
        ),
    ] = "0",
    audit_share: Annotated[
        float,
        typer.Option(
            min=0, max=1, metavar="SHARE", rich_help_panel=LABELS,
            help="A random share of transactions whose labels come early, marked `audit`.",
        ),
    ] = 0.0,
    audit_delay: Annotated[
        int, typer.Option(min=0, metavar="N", help="Batches until audit labels come.", rich_help_panel=LABELS)
    ] = 0,
    flush_labels: Annotated[
        bool,
        typer.Option(
            "--flush-labels", help="At the end, send the labels that are not due yet.", rich_help_panel=LABELS
        ),
    ] = False,
    csv: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", rich_help_panel=CSV,
            help="Rows of a CSV file with a header instead of the synthetic ones. The bundle (--bundle) says which "
            "columns it takes and how; a drift step can name any of its features.",
        ),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FEATURE=COLUMN", help="Where the file has another name for it.", rich_help_panel=CSV
        ),
    ] = None,
    label_column: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", show_default="the bundle's, where the file has it", rich_help_panel=CSV,
            help="Holds 1 for fraud, 0 for not (or true/false, yes/no).",
        ),
    ] = None,
    amount_column: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Holds the amount.", rich_help_panel=CSV)
    ] = None,
    id_column: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Holds the transaction id.", rich_help_panel=CSV)
    ] = None,
    delimiter: Annotated[
        str | None,
        typer.Option(metavar="CHAR", show_default="looked for", help="What parts the cells.", rich_help_panel=CSV),
    ] = None,
    bundle: BundleDir = None,
    data_dir: DataDir = DATA_DIR,
) -> None:  # fmt: skip
    """Feed the transactions topic: synthetic rows or a file's, with a drift, and labels late.

    Anybody's own client can do the same: the topic is the interface.
    """
    if list_scenarios:
        from producer.scenarios import SCENARIOS

        for each in SCENARIOS.values():
            typer.echo(f"{each.name:<10} {each.description}")
        return
    from selfheal.process import INTERRUPTED
    from selfheal.serve import begin, check_rights, slot_named
    from shared.settings import ProducerSettings

    flags = slot_named({"slot": slot, "prefix": prefix or None})
    settings, stop = begin(ProducerSettings, flags)
    from producer.batch import BatchSource
    from producer.csv_source import CsvSource
    from producer.service import run as feed
    from selfheal import feed as build
    from selfheal.where import find_bundle, find_kafka
    from shared import bundle as bundles
    from shared.topics import check_prefix

    check_prefix(settings.prefix)
    kafka = find_kafka(data_dir)
    check_rights(kafka, "producer", settings.prefix)
    if lockstep:
        check_rights(kafka, "lockstep", settings.prefix)
    labels = build.label_plan(
        delay=label_delay, audit_share=audit_share, audit_delay=audit_delay, seed=seed, flush=flush_labels
    )
    source: BatchSource
    read: CsvSource | None = None
    if csv is None:
        source = build.synthetic(
            seed=seed, rows=rows, scenario=scenario, strength=strength, drift=drift or (),
            labelled=labels.delay is not None or labels.audit_share > 0,
        )  # fmt: skip
    else:
        options = build.CsvOptions(csv, column or (), label_column, amount_column, id_column, delimiter)
        model = bundles.load(find_bundle(bundle, data_dir))
        read = build.from_csv(options, model.features, rows=rows, table=model.manifest.table)
        source = build.drifted(read, drift or ())
    pace = GENTLE if rate is None and not lockstep else rate
    done = feed(
        settings, kafka, source, batches=batches, rate=pace or None, lockstep=lockstep, labels=labels, run_name=run,
        stop=stop,
    )  # fmt: skip
    typer.echo(
        f"run {done.run}: {done.batches} batches, {done.rows} transactions, {done.labels} labels records, "
        f"{done.audits} audits, {done.outstanding} labels records not due yet; {done.took_s:g} s"
    )
    for line in build.told(read) if read is not None else ():
        typer.echo(line)
    if stop.interrupted:
        raise typer.Exit(INTERRUPTED)
