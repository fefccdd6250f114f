"""Coverage-guided fuzzing of one decoder: `python tests/fuzz/harness.py TARGET SECONDS`, or `make fuzz` for all.

Begins from the kept corpus and the good samples of the property tests; what covers something new is added to the corpus
of this run, in .fuzz/TARGET. What crashes is written to tests/fuzz/corpus/TARGET, where tests/test_hostile_corpus.py
runs it for ever after. SECONDS 0: takes the small inputs of the run before over into that folder.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
MAX_BYTES = 8_192
KEPT_MAX, KEPT_BYTES = 60, 3_000
sys.path[:0] = [str(ROOT), str(HERE.parent)]
# Instrumented as they are imported; the packages beside them are not ours to cover.
OURS = ["shared", "scorer", "healer", "monitor", "producer"]


def main() -> None:
    """Exit code 0: nothing was found in the time given."""
    import atheris

    target, seconds = sys.argv[1], int(sys.argv[2])
    with atheris.instrument_imports(include=OURS):
        import hostile_kit
    from test_hostile_files import SAMPLES
    from test_hostile_records import VALID

    run, kept = ROOT / ".fuzz" / target, HERE / "corpus" / target
    for folder in (run, kept):
        folder.mkdir(parents=True, exist_ok=True)
    samples = {**SAMPLES, **VALID}
    if target in samples:
        (run / "good").write_bytes(samples[target])
    if not seconds:
        small = sorted(path for path in run.iterdir() if path.stat().st_size <= KEPT_BYTES)
        for path in small[:KEPT_MAX]:
            (kept / path.name).write_bytes(path.read_bytes())
        return
    limits = [f"-artifact_prefix={kept}/", f"-max_len={MAX_BYTES}", "-timeout=10", "-rss_limit_mb=1500"]
    search = [str(run), str(kept), f"-max_total_time={seconds}", "-print_final_stats=1", "-seed=1"]
    atheris.Setup([sys.argv[0], *search, *limits], hostile_kit.TARGETS[target])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
