"""Which topic waits for the other when one is far ahead, so that labels and predictions still meet.

Without a backlog nothing ever waits. With one, the client hands over whatever it fetched, and the labels of a fast
producer may lie there long before the scorers come to their batches.
"""

from __future__ import annotations

from shared.topics import Name


def waiting(held: Name | None, early: int, pending: int, most: int, labels_left: bool) -> Name | None:
    """The topic to read nothing more from for now.

    held: the answer so far. early, pending: batches whose labels wait for their prediction, and the reverse; most:
    how many are kept of either (pending_max). labels_left: there are labels not read yet. Labels wait from `most`
    early batches until half of them met their predictions; else predictions wait from 3/4 pending batches until the
    labels have brought them to half or are all read. Never both, so one of them always goes on. A turn should hold
    a quarter of `most` at most.
    """
    if early >= most or (held == "labels" and early > most / 2):
        return "labels"
    if labels_left and (pending >= 0.75 * most or (held == "predictions" and pending > most / 2)):
        return "predictions"
    return None
