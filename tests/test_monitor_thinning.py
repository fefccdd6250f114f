"""Which batches a thinned monitor reads, and when it changes its mind."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.thinning import CALM_LOOKS, LOWEST, Look, is_read, next_share


@pytest.mark.parametrize("share", [0.5, 0.25, 0.125])
@pytest.mark.parametrize("seed", [0, 7])
def test_the_share_is_kept_on_numbered_ids(share: float, seed: int) -> None:
    read = sum(is_read(b"run-%06d" % k, seed, share) for k in range(8_000))
    assert read / 8_000 == pytest.approx(share, rel=0.1)


@given(st.binary(max_size=50), st.integers(0, 2**40), st.integers(1, 10))
def test_a_smaller_share_reads_a_subset(key: bytes, seed: int, halvings: int) -> None:
    assert is_read(key, seed, 1.0)
    if is_read(key, seed, 0.5**halvings):
        assert is_read(key, seed, 0.5 ** (halvings - 1))


def test_the_seed_decides() -> None:
    picked = [{k for k in range(200) if is_read(b"%d" % k, seed, 0.5)} for seed in (1, 1, 2)]
    assert picked[0] == picked[1] != picked[2]


def test_a_backlog_that_does_not_shrink_halves_the_share() -> None:
    share, look = next_share(1.0, 30_000, Look(0), 20_000)
    assert (share, look.lag) == (0.5, 30_000)
    assert next_share(share, 29_000, look, 20_000)[0] == 0.25
    assert next_share(share, 20_000, look, 20_000)[0] == 0.5


def test_the_share_has_a_floor() -> None:
    assert next_share(LOWEST, 10**9, Look(0), 100)[0] == LOWEST


def test_it_comes_back_only_after_some_calm_looks_in_a_row() -> None:
    share, look = 0.5, Look(0)
    for _ in range(CALM_LOOKS - 1):
        share, look = next_share(share, 10, look, 20_000)
    assert share == 0.5
    assert next_share(share, 6_000, look, 20_000)[1].calm == 0
    assert next_share(share, 10, look, 20_000)[0] == 1.0
