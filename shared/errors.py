"""Every error we raise ourselves, by what the caller must do next.

SelfhealError
├── OperatorError   a person must change something; printed without a traceback, exit code 2
├── Refused         a record, file or adapter cannot be used; becomes a dead letter or an event
├── Rewind          the transaction was aborted; seek back to the committed offsets and carry on
├── Fatal           this process must exit, a fresh one replays from the committed offsets; exit code 3
│   └── Fenced      a newer process with our name took over; do not come back; exit code 4
└── TimedOut        a deadline passed and nothing was changed
"""

from __future__ import annotations


class SelfhealError(Exception):
    """Root of the tree above."""


class OperatorError(SelfhealError):
    """What is wrong, which setting or file, and the way out: the message is all the operator sees."""


class Refused(SelfhealError):
    """Input that cannot be used. reason: for a person. field: the path to blame, like ``features[3][2]``."""

    def __init__(self, reason: str, field: str | None = None) -> None:
        super().__init__(reason if field is None else f"{field}: {reason}")
        self.reason = reason
        self.field = field


class Rewind(SelfhealError):
    """The open transaction is aborted already; nothing of the turn was published."""


class Fatal(SelfhealError):
    """The outcome is unknown or the client is beyond repair."""


class Fenced(Fatal):
    """Another process runs under the same transactional.id and is the newer one."""


class TimedOut(SelfhealError):
    """The budget of a blocking call is spent."""
