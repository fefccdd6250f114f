"""What a fuzzer found once, and what it learned from: run again, for ever."""

from __future__ import annotations

from pathlib import Path

import pytest
from hostile_kit import TARGETS

CORPUS = Path(__file__).parent / "fuzz" / "corpus"


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_the_kept_corpus_is_taken_or_refused(target: str) -> None:
    kept = sorted(path for path in (CORPUS / target).iterdir() if path.is_file())
    assert kept, f"no corpus of {target} in {CORPUS}"
    for path in kept:
        try:
            TARGETS[target](path.read_bytes())
        except BaseException as exc:
            exc.add_note(f"by {path}")
            raise
