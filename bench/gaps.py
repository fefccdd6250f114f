"""`python -m bench.gaps`: how often each core stands still for all that runs on it. A loop that looks at the clock is
bound to one core, then one to each: gaps that come only with the second are the machine's, as in a virtual one whose
host gives its cores to others. Latencies of bench.latency cannot be better than these."""

from __future__ import annotations

import os
import subprocess
import sys
import time

SECONDS, GAP_S = 10.0, 0.002


def main() -> None:
    """Print a line for one busy core, and one for all of them."""
    cores = sorted(os.sched_getaffinity(0))
    for busy in (cores[:1], cores):
        children = [
            subprocess.Popen([sys.executable, __file__, str(core)], stdout=subprocess.PIPE, text=True) for core in busy
        ]
        told = [child.communicate(timeout=SECONDS + 30)[0].strip() for child in children]
        print(f"{len(busy)} of {len(cores)} cores busy, {SECONDS:g} s: {'; '.join(told)}")


def watch(core: int) -> str:
    """Gaps of over 2 ms on a core."""
    os.sched_setaffinity(0, {core})
    gaps, last = list[float](), time.perf_counter()
    end = last + SECONDS
    while last < end:
        now = time.perf_counter()
        if now - last > GAP_S:
            gaps.append(now - last)
        last = now
    return f"{len(gaps)} gaps of over 2 ms, longest {max(gaps, default=0) * 1_000:.0f} ms"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(watch(int(sys.argv[1])))
    else:
        main()
