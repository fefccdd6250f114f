"""The story in sentences, for somebody who sees this for the first time. Pure."""

from __future__ import annotations

from selfheal.story import Chapter, Outcome, Story, mean, measured
from selfheal.tail_lines import score

WHAT_REFUSED = (
    "No repair can be read off the rows, so none is made: doing nothing is the best that is left, a person is called, "
    "and only labels can teach the model something new."
)
WHAT_HEALED = (
    "The repair undoes the change in front of the frozen network: the scorer took it up between two batches, no label "
    "was needed. The frozen network scores every batch as well: the proof, as labels come in."
)


def explanation(story: Story) -> str:
    """What happens now."""
    chapter, newest = story.chapter, story.newest
    if chapter is None or newest is None:
        right = mean(story.scored(), "accuracy_healed")
        so_far = f" The model is right about {percent(right)} of them." if right is not None else ""
        return (
            f"Transactions look as they did in training.{so_far} Every column of every batch is held against training; "
            "over the line would be an alarm, about one false one in 10,000 quiet batches."
        )
    if newest.batch_idx > chapter.act.last and chapter.outcome != Outcome.AHEAD:
        return f"{_ended(chapter)} The stream is quiet again: batch {newest.batch_idx} looks as in training."
    return f"{chapter.act.told} {_so_far(story, chapter)}"


def _so_far(story: Story, chapter: Chapter) -> str:
    match chapter.outcome:
        case Outcome.REFUSED:
            return WHAT_REFUSED
        case Outcome.HEALED:
            return WHAT_HEALED
        case Outcome.TAKEN_BACK:
            return "Labels were the judge: the repair did harm, so it is taken back and not tried again for a while."
        case Outcome.SEEN:
            return (
                "The monitor has noticed and asks: what is it? The healer, another process, fetches exactly the rows "
                "that the request names and compares explanations. Scoring goes on meanwhile."
            )
        case _:
            now = mean(chapter.drifted, "accuracy_shadow")
            fell = f" It is right about {percent(now)} of them now." if now is not None else ""
            return f"Nobody told the model.{fell}"


def _ended(chapter: Chapter) -> str:
    words = {
        Outcome.HEALED: "Healed while it lasted"
        + (", and taken out of force when it ended." if chapter.ended else "."),
        Outcome.REFUSED: "Refused, rightly left alone, and over by itself.",
        Outcome.TAKEN_BACK: "Taken back.",
    }
    return words.get(chapter.outcome, "It passed without a verdict.")


def evidence(story: Story, chapter: Chapter) -> list[tuple[str, str]]:
    """(what, words) of a chapter, in the order in which it is known: alarm, verdict, estimate, measured, end."""
    lines = []
    if chapter.alarm is not None:
        late = (story.batch_of(chapter.alarm) or chapter.act.first) - chapter.act.first + 1
        lines.append(("alarm", f"on drifted batch {late}: {chapter.alarm.message}"))
    if chapter.verdict is not None:
        lines.append((f"verdict {chapter.verdict.facts.get('verdict')}", chapter.verdict.message))
        if estimate := _estimate(chapter):
            lines.append(("estimated before", estimate))
    lines += _measured(story, chapter)
    if chapter.ended is not None:
        lines.append(("taken back" if chapter.ended.kind == "rolled-back" else "drift ended", chapter.ended.message))
    if chapter.learned is not None:
        lines.append(("learned", chapter.learned.message))
    return lines


def _estimate(chapter: Chapter) -> str:
    """What the healer expected before anything was activated, without a label."""
    effect = chapter.verdict.facts.get("effect") if chapter.verdict is not None else None
    if not isinstance(effect, dict) or chapter.activated is None:
        return ""
    before, after = effect["before"], effect["after"]
    low, high = effect["gain_worst"][0], effect["gain_best"][0]
    return (
        f"without labels: accuracy {score(before[0])} -> {score(after[0])}, a gain of {score(low, sign=True)} to "
        f"{score(high, sign=True)}; cost {score(before[1])} -> {score(after[1])}"
    )


def _measured(story: Story, chapter: Chapter) -> list[tuple[str, str]]:
    """With labels: as served, beside frozen, the best possible and flagging nobody."""
    rows = chapter.repaired or chapter.drifted
    served, frozen = measured(rows, "healed"), measured(rows, "shadow")
    if served is None or frozen is None:
        return []
    best, nobody = story.best(rows), story.nobody(rows)
    batches = f"{len(rows)} batch{'es' if len(rows) != 1 else ''}"
    first = f"accuracy {score(served.accuracy)} served, {score(frozen.accuracy)} frozen"
    second = f"cost {score(served.cost)} served, {score(frozen.cost)} frozen"
    return [
        ("measured", f"{first}, {score(best.accuracy)} at best, {score(nobody.accuracy)} flagging nobody ({batches})"),
        ("", f"{second}, {score(best.cost)} at best, {score(nobody.cost)} flagging nobody"),
    ]


def percent(value: float | None) -> str:
    """72% for 0.724."""
    return "-" if value is None else f"{value:.0%}"
