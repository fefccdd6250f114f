"""`python tests/fuzz/all.py SECONDS [TARGET ..]`: each for so long, one line a target; exit code 1 where one broke."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent)]
GRACE_S = 120.0  # to import and to end


def main() -> int:
    from hostile_kit import TARGETS

    seconds, chosen = int(sys.argv[1]), sys.argv[2:] or sorted(TARGETS)
    broken = []
    for target in chosen:
        done = subprocess.run(
            [sys.executable, str(HERE / "harness.py"), target, str(seconds)], capture_output=True, text=True,
            errors="replace", timeout=seconds + GRACE_S, check=False,
        )  # fmt: skip
        runs = re.search(r"stat::number_of_executed_units:\s*(\d+)", done.stderr)
        covered = re.findall(r"cov: (\d+)", done.stderr)
        said = f"{runs[1] if runs else '?':>9} runs, {covered[-1] if covered else '?':>5} branches"
        print(f"{target:<22} {said}, exit {done.returncode}", flush=True)
        if done.returncode:
            broken.append(target)
            print("\n".join(done.stderr.splitlines()[-40:]))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
