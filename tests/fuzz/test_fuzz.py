"""The parsers, fuzzed: what was found once is tried again by everyone, and a minute goes into finding more."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from tests.fuzz.campaign import CORPUS, fuzz, seeds
from tests.fuzz.targets import TARGETS, run

MOST_BYTES = 200_000  # of the corpus
SECONDS = 60 // len(TARGETS)


@pytest.mark.parametrize("target", TARGETS)
def test_what_was_of_interest_once_goes_well(target: str) -> None:
    inputs = seeds(target)
    assert inputs
    for data in inputs:
        run(target, data)


def test_the_corpus_stays_small() -> None:
    assert sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()) < MOST_BYTES
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)


@pytest.mark.needs("atheris")
def test_a_minute_of_coverage_guided_fuzzing_finds_nothing(tmp_path: Path) -> None:
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        outcomes = list(pool.map(partial(fuzz, seconds=SECONDS, place=tmp_path), TARGETS))
    assert not [f"{outcome.target}: {outcome.finding}" for outcome in outcomes if outcome.finding]
    assert all(outcome.executions > 100 for outcome in outcomes), outcomes
    print(f"{sum(outcome.executions for outcome in outcomes)} executions in {SECONDS * len(TARGETS)} s")
