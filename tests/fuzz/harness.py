"""Coverage-guided fuzzing of one decoder: `python tests/fuzz/harness.py TARGET SECONDS`, or `make fuzz` for all.

Begins from the kept corpus and the good samples of the property tests; what covers something new is added to the corpus
of this run, in .fuzz/TARGET. What crashes is written to tests/fuzz/corpus/TARGET, where tests/test_hostile_corpus.py
runs it for ever after. SECONDS 0: takes over into that folder what covers something that nothing there does.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
MAX_BYTES = 8_192
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
    limits = [f"-artifact_prefix={kept}/", f"-max_len={MAX_BYTES}", "-timeout=10", "-rss_limit_mb=1500"]
    search = [str(run), str(kept), f"-max_total_time={seconds}", "-print_final_stats=1", "-seed=1"]
    how = search if seconds else [str(kept), str(run), "-merge=1"]
    atheris.Setup([sys.argv[0], *how, *limits], hostile_kit.TARGETS[target])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
