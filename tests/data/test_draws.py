"""A draw hangs on (seed, purpose, key) alone, is the same everywhere and for ever, and is fair."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys

from hypothesis import given, settings
from hypothesis import strategies as st

from mllmrec.data.draws import generator, uniform


def digest(text: bytes) -> int:
    return int(hashlib.sha256(text).hexdigest(), 16)


def test_a_generator_is_seeded_by_a_hash_anyone_can_repeat() -> None:
    expected = random.Random(digest(b"42\x1fnegatives\x1fu1"))
    rng = generator(42, "negatives", "u1")
    assert [rng.random() for _ in range(5)] == [expected.random() for _ in range(5)]


def test_a_uniform_draw_is_the_top_of_that_hash() -> None:
    assert uniform(42, "hint", "a") == (digest(b"42\x1fhint\x1fa") >> (256 - 53)) / 2**53


def test_frozen_draws_stay_what_they_were() -> None:
    """A change here changes every candidate file ever frozen."""
    assert generator(42, "candidates/test", "0123456789abcdef").randrange(10**6) == 132310
    assert round(uniform(42, "hint", "0123456789abcdef"), 6) == 0.059512


def test_a_draw_is_the_same_in_every_process() -> None:
    code = "from mllmrec.data.draws import uniform; print(uniform(1, 'p', 'é'))"
    environment = os.environ | {"PYTHONHASHSEED": "77"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert float(result.stdout) == uniform(1, "p", "é")


KEYS = st.tuples(st.integers(-5, 500), st.text("ab/1", max_size=3), st.text("ab/1", max_size=3))


@given(KEYS, KEYS)
@settings(deadline=None)
def test_two_draws_are_equal_only_when_seed_purpose_and_key_are(
    one: tuple[int, str, str], two: tuple[int, str, str]
) -> None:
    assert (uniform(*one) == uniform(*two)) == (one == two)


@given(st.permutations([str(key) for key in range(8)]))
@settings(deadline=None)
def test_the_order_of_asking_changes_nothing(keys: list[str]) -> None:
    drawn = {key: generator(1, "negatives", key).random() for key in keys}
    assert drawn == {key: generator(1, "negatives", key).random() for key in sorted(keys)}


def test_draws_fill_the_unit_interval_evenly() -> None:
    draws = [uniform(42, "hint", str(key)) for key in range(10_000)]
    bins = [sum(low <= 10 * draw < low + 1 for draw in draws) for low in range(10)]
    assert sum(bins) == 10_000
    # Each bin is binomial with mean 1,000 and standard deviation 30.
    assert all(abs(count - 1_000) < 150 for count in bins)


def test_purposes_are_unrelated() -> None:
    both = sum(uniform(42, "hint", str(k)) < 0.5 and uniform(42, "order", str(k)) < 0.5 for k in range(10_000))
    assert abs(both - 2_500) < 5 * 43
