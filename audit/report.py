"""What an audit found: a line for each rule."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

SHOWN = 3
RULES: dict[str, str] = {
    "answers": "every input has exactly one prediction or one dead letter",
    "contents": "answers carry their input's ids, rows and bytes, and a dead letter its real cause",
    "probabilities": "every probability is what row, bundle and named adapter give",
    "derived": "flags, rule, sums and conflicts records follow from probabilities and rows",
    "versions": "every prediction was made by a version that control had in force",
    "adapters": "every adapter has its checksum, parent, bundle, shapes and finite numbers",
    "outcomes": "every heal request has exactly one outcome",
    "offsets": "the groups stand where the logs say, and have skipped nothing",
    "metrics": "every metrics row follows from predictions and labels",
    "causes": "every heal, activation and rollback has its cause before it and its control record",
    "once": "no decision was published twice",
    "state": "the monitor's state is that of what it has published",
}


@dataclass
class Finding:
    """One rule. first: of its offenders, (where, what is wrong)."""

    rule: str
    checked: int = 0
    offences: int = 0
    first: list[tuple[str, str]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return self.offences == 0


class Report:
    """Filled in by the rules while they read; complete when audit.run returns it."""

    def __init__(self) -> None:
        self.findings = {rule: Finding(rule) for rule in RULES}
        self.counts: dict[str, int] = {}
        self.inputs = self.lost = self.doubled = 0  # transactions records; of these without an answer, with several
        self.notes: list[str] = []
        self.took_s = 0.0

    @property
    def ok(self) -> bool:
        """Whether every rule holds."""
        return all(f.ok for f in self.findings.values())

    def broken(self) -> list[str]:
        """The rules that do not hold."""
        return [rule for rule, f in self.findings.items() if not f.ok]

    def check(self, rule: str, holds: bool, where: str, why: str) -> bool:
        """Count one check of a rule, and an offender where it does not hold; returns `holds`."""
        finding = self.findings[rule]
        finding.checked += 1
        if not holds:
            finding.offences += 1
            if len(finding.first) < SHOWN:
                finding.first.append((where, why))
        return holds

    def count(self, what: str, n: int = 1) -> None:
        """Something that is no offence, but that a reader should know."""
        self.counts[what] = self.counts.get(what, 0) + n

    def note(self, text: str) -> None:
        """Said once, whatever happens how often."""
        if text not in self.notes:
            self.notes.append(text)

    def lines(self) -> list[str]:
        """For a terminal."""
        out = []
        for rule, f in self.findings.items():
            verdict = "ok  " if f.ok else "FAIL"
            out.append(f"{verdict} {rule:13} {f.checked:>9,} checked {f.offences:>6,} offenders  {RULES[rule]}")
            out += [f"       {where}: {why}" for where, why in f.first]
        out.append(f"     {self.inputs:,} inputs: {self.lost:,} lost, {self.doubled:,} answered more than once")
        out += [f"     {n:,} {what}" for what, n in sorted(self.counts.items())]
        out += [f"     note: {text}" for text in self.notes]
        verdict = "all rules hold" if self.ok else f"broken: {', '.join(self.broken())}"
        return [*out, f"{verdict} ({self.took_s:.1f} s)"]

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {
            "ok": self.ok,
            "broken": self.broken(),
            "rules": {
                rule: {
                    "ok": f.ok, "checked": f.checked, "offenders": f.offences, "about": RULES[rule],
                    "first": [{"where": where, "why": why} for where, why in f.first],
                }
                for rule, f in self.findings.items()
            },
            "inputs": {"read": self.inputs, "lost": self.lost, "doubled": self.doubled},
            "counts": self.counts,
            "notes": self.notes,
            "took_s": round(self.took_s, 3),
        }  # fmt: skip
