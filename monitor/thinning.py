"""Reading a stated share of the batches when the stream is faster than the monitor.

A batch is read iff blake2b(batch id; 4 bytes, keyed with the seed in decimal) / 2^32 < share. Who knows the seed can
repeat the choice; a smaller share reads a subset of what a larger one reads. (crc32 would be 0.4 us cheaper, but on
numbered ids its share is off by up to a third.)
"""

from __future__ import annotations

import hashlib

import msgspec

LOWEST = 1 / 1024
CALM_LOOKS = 5  # looks in a row with little lag before the share is doubled back


class Look(msgspec.Struct, frozen=True):
    """The lag at the last look, and for how many looks it has been small."""

    lag: int = 0
    calm: int = 0


def is_read(key: bytes, seed: int, share: float) -> bool:
    """Whether the batch with this id (UTF-8 bytes, as in the record's key) is among those read."""
    if share >= 1.0:
        return True
    digest = hashlib.blake2b(key, digest_size=4, key=b"%d" % seed).digest()
    return int.from_bytes(digest) < share * 2**32


def next_share(share: float, lag: int, last: Look, thin_lag: int) -> tuple[float, Look]:
    """The share from now on, given the predictions still unread.

    Halved above thin_lag unless the lag fell by a tenth since the last look (then this share is enough);
    doubled back after 5 looks in a row below a quarter of thin_lag.
    """
    calm = last.calm + 1 if lag < thin_lag / 4 else 0
    if lag > thin_lag and lag > 0.9 * last.lag:
        return max(share / 2, LOWEST), Look(lag)
    if share < 1.0 and calm >= CALM_LOOKS:
        return min(share * 2, 1.0), Look(lag)
    return share, Look(lag, calm)
