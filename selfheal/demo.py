"""`selfheal demo`: three drifts before your eyes; one is healed, one refused, one repair taken back."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from monitor.export import export_run
from selfheal import demo_report
from selfheal.acts import Plan, truth
from selfheal.bundle_process import training
from selfheal.demo_picture import picture
from selfheal.document import as_html, as_markdown
from selfheal.local import LocalPipeline
from selfheal.story import Story
from selfheal.story_words import evidence
from selfheal.view import batch_line, event_line, view
from selfheal.where import kafka_or_embedded
from shared.bundle import write_whole
from shared.errors import OperatorError
from shared.kafka import Follower, read_all
from shared.records import Event, Metrics, Prediction, decode, decode_event
from shared.telemetry import wall_clock
from shared.topics import topic_name

PLAN = Plan()
RATE = 1.6  # batches/s: slow enough to read along
PARTITIONS = 2  # every demo leaves its topics: few files each
READY_S, STUCK_S, FRAME_S = 60.0, 30.0, 0.2


def demo(console: Console, *, data_dir: Path, plan: Plan = PLAN, rate: float = RATE) -> Path:
    """Run it, print the report, return the run folder. Raises OperatorError; everything is ended in any case."""
    began = time.monotonic()
    name = f"demo-{datetime.now().astimezone():%Y%m%d-%H%M%S}"
    folder = Path("runs") / name
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    logging.basicConfig(filename=folder / "logs" / "demo.log", level=logging.INFO)  # never across the picture

    def say(what: str) -> None:
        console.print(Text.assemble((f"{time.monotonic() - began:5.1f} s  ", "dim"), what), soft_wrap=True)

    try:
        say("starting Apache Kafka, and training a model beside it")
        with training(folder / "bundle") as trained, kafka_or_embedded(data_dir) as cluster:
            story = Story(plan, truth(plan))
            say(f"Kafka is at {cluster.kafka['bootstrap.servers']}{', embedded' if cluster.embedded else ''}")
            trained()
            say("the model is trained; starting four processes: producer, scorer, healer, monitor")
            pipeline = LocalPipeline(
                cluster.kafka, name, folder / "bundle", policy="guarded", producer=_producer(plan, rate),
                run_dir=folder, partitions=PARTITIONS, notice=lambda text: story.told.append(_notice(text)),
            )  # fmt: skip
            with pipeline:
                pipeline.wait_ready(READY_S)
                say(f"they are up and share nothing but Kafka, topics {name}.*")
                with _screen(console, story, began) as show:
                    _follow(cluster.kafka, name, story, pipeline, show)
            export_run(cluster.kafka, name, folder)
            predictions = _predictions(cluster.kafka, name, story)
    except KeyboardInterrupt:
        say("stopped early; every process has ended")
        raise
    _report(console, story, predictions, folder)
    say(
        f"done; every process has ended. With pictures: {folder}/report.html; beside it metrics.csv, events.json, logs/"
    )
    return folder


def _producer(plan: Plan, rate: float) -> list[str]:
    drifts = [word for act in plan.acts for drift in act.drifts for word in ("--drift", drift)]
    return [
        "--batches", str(plan.batches), "--rows", str(plan.rows), "--rate", str(rate), "--seed", str(plan.seed),
        "--label-delay", str(plan.label_delay), "--flush-labels", *drifts,
    ]  # fmt: skip


def _notice(text: str) -> Event:
    """What the supervisor says has a place among the events on the screen."""
    return Event(at=wall_clock(), kind="service-restarted", message=text)


class _Screen:
    """Where the story is shown; a line a batch and an event where there is no terminal."""

    def __init__(self, console: Console, story: Story, began: float, live: Live | None) -> None:
        self._console, self._story, self._began, self._live = console, story, began, live

    def batch(self, row: Metrics) -> None:
        if self._live is None:
            self._console.print(batch_line(row, self._story), soft_wrap=True)

    def event(self, event: Event) -> None:
        if self._live is None:
            self._console.print(event_line(event), soft_wrap=True)

    def frame(self) -> None:
        if self._live is not None:
            size, elapsed_s = self._console.size, time.monotonic() - self._began
            self._live.update(
                view(self._story, width=size.width, height=size.height, elapsed_s=elapsed_s), refresh=True
            )


@contextmanager
def _screen(console: Console, story: Story, began: float) -> Iterator[_Screen]:
    if not console.is_terminal:
        yield _Screen(console, story, began, None)
        return
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        yield _Screen(console, story, began, live)


def _follow(kafka: Mapping[str, Any], prefix: str, story: Story, pipeline: LocalPipeline, show: _Screen) -> None:
    """Until all is known about every batch. Raises OperatorError: a service is gone, or nothing moves any more."""
    metrics, events = topic_name("metrics", prefix), topic_name("events", prefix)
    moved = time.monotonic()
    with closing(Follower(kafka, [metrics, events], name="demo")) as follower:
        while story.done < story.plan.batches:
            for record in follower.take(FRAME_S):
                moved = time.monotonic()
                if record.topic == events:
                    event = decode_event(record.value)
                    if story.add_event(event):
                        show.event(event)
                elif story.add_row(row := decode(Metrics, record.value)):
                    show.batch(row)
            show.frame()
            if failed := pipeline.failed():
                raise OperatorError(f"{failed[0].name} ended. The end of {failed[0].log}:\n{failed[0].log_tail()}")
            if time.monotonic() - moved > STUCK_S:
                raise OperatorError(f"nothing has happened for {STUCK_S:.0f} s; see {pipeline.run_dir / 'logs'}")


def _predictions(kafka: Mapping[str, Any], prefix: str, story: Story) -> dict[int, Prediction]:
    """By batch number."""
    number = {row.batch_id: k for k, row in story.rows.items()}
    found = (decode(Prediction, record.value) for record in read_all(kafka, topic_name("predictions", prefix)))
    return {number[p.batch_id]: p for p in found if p.batch_id in number}


def _report(console: Console, story: Story, predictions: Mapping[int, Prediction], folder: Path) -> None:
    drawn = picture(story)
    files = ["metrics.csv", "events.json", "threshold_config.json", "bundle/", "logs/"]
    blocks = demo_report.document(story, predictions, drawn, files)
    write_whole(folder / drawn.name, drawn.png)
    write_whole(folder / "report.md", as_markdown(blocks).encode())
    write_whole(folder / "report.html", as_html(blocks).encode())
    console.print()
    for number, chapter in enumerate(story.chapters, start=1):
        console.print(Text(demo_report.titled(number, chapter), style="bold"), soft_wrap=True)
        console.print(demo_report.as_lines(evidence(story, chapter)))
        console.print()
        lines = demo_report.table(story, predictions, chapter.act.first, chapter.act.last)
        console.print(demo_report.as_table(lines))
        console.print()
    console.print(demo_report.caution(story), style="dim")
    console.print()
