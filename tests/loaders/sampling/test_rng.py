"""Random numbers are Philox of the documented key, never change, and have the stated distributions."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest

from cacl.loaders.sampling.rng import RandomStream


def philox(key: list[int], counter: list[int]) -> list[int]:
    """Returns the four 64-bit words of Philox 4x64-10 for a key and a counter, as published (Salmon et al. 2011)."""
    word = 2**64
    (k0, k1), (c0, c1, c2, c3) = key, counter
    for _ in range(10):
        p0, p1 = 0xD2E7470EE14C6C93 * c0, 0xCA5A826395121157 * c2
        c0, c1, c2, c3 = (p1 // word) ^ c1 ^ k0, p1 % word, (p0 // word) ^ c3 ^ k1, p0 % word
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) % word, (k1 + 0xBB67AE8584CAA73B) % word
    return [c0, c1, c2, c3]


def test_the_reference_gives_the_published_words():
    """The words are in Random123's known-answer file, under philox4x64 10, for all zeros and all ones."""
    ones = 2**64 - 1
    assert philox([0, 0], [0] * 4) == [0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B]
    assert philox([ones] * 2, [ones] * 4) == [
        0x87B092C3013FE90B, 0x438C3C67BE8D0224, 0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0,
    ]  # fmt: skip


@pytest.mark.parametrize("key", [(0,), (0, 0), (1, 2, 3, 4), (2**63 - 1, 5, 2**63 - 1)])
def test_draws_are_philox_of_the_documented_key(key: tuple[int, ...]):
    words = [value + 1 for value in key] + [0] * (4 - len(key))
    expected = [philox(words[:2], [block, 0, *words[2:]]) for block in (1, 2)]  # the first block has the number 1
    rng = RandomStream(*key)
    assert [rng.integer(0, 2**53) for _ in range(8)] == [word >> 11 for block in expected for word in block]


def test_draws_are_what_they_have_always_been():
    rng = RandomStream(1, 2, 3, 4)
    assert [rng.integer(0, 2**53) for _ in range(5)] == [
        6333794035046546, 1182931628988289, 1336285769545159, 6398848272364929, 7083883808327599,
    ]  # fmt: skip
    rng = RandomStream(7)
    assert rng.uniform(-1, 3) == 2.982705343805335
    assert rng.integer(10, 20) == 14
    assert rng.chance(0.5) is False
    assert rng.permutation(8) == [1, 3, 0, 4, 6, 5, 7, 2]
    assert rng.uniform(0, 1) == 0.2952643751881724


def test_different_keys_are_different_streams():
    values = (0, 1, 2, 2**63 - 1)
    keys = [key for length in (1, 2, 3, 4) for key in itertools.product(values, repeat=length)]
    assert len({RandomStream(*key).integer(0, 2**53) for key in keys}) == len(keys)


@pytest.mark.parametrize("key", [(), (1, 2, 3, 4, 5), (-1,), (2**63,)])
def test_keys_that_could_collide_are_refused(key: tuple[int, ...]):
    with pytest.raises(AssertionError):
        RandomStream(*key)


def test_distributions():
    rng, n = RandomStream(3), 20_000
    uniform = np.array([rng.uniform(2, 5) for _ in range(n)])
    assert uniform.min() >= 2
    assert uniform.max() < 5
    assert uniform.mean() == pytest.approx(3.5, abs=4 * math.sqrt(9 / 12 / n))
    assert uniform.var() == pytest.approx(9 / 12, rel=0.05)

    counts = Counter(rng.integer(-3, 4) for _ in range(n))
    assert set(counts) == set(range(-3, 4))
    assert sum((count - n / 7) ** 2 / (n / 7) for count in counts.values()) < 22.5  # chi squared of 6, p = 0.001

    assert sum(rng.chance(0.3) for _ in range(n)) / n == pytest.approx(0.3, abs=4 * math.sqrt(0.21 / n))
    assert not any(rng.chance(0) for _ in range(100))
    assert all(rng.chance(1) for _ in range(100))

    orders = Counter(tuple(rng.permutation(4)) for _ in range(n))
    assert set(orders) == set(itertools.permutations(range(4)))
    assert sum((count - n / 24) ** 2 / (n / 24) for count in orders.values()) < 49.7  # chi squared of 23, p = 0.001


def test_intervals_are_half_open_where_rounding_would_close_them():
    rng = RandomStream(0)
    high = math.nextafter(1.0, 2.0)
    assert all(rng.uniform(1.0, high) == 1.0 for _ in range(100))
    assert rng.uniform(0.875, 0.875) == 0.875
    assert rng.integer(5, 6) == 5
    assert rng.permutation(0) == []


@pytest.mark.parametrize("n", [0, 1, 2, 3, 16, 257, 5000])
def test_a_permutation_is_drawn_as_if_one_by_one(n: int) -> None:
    at_once, one_by_one = RandomStream(5, n), RandomStream(5, n)
    order = list(range(n))
    for last in range(n - 1, 0, -1):
        other = one_by_one.integer(0, last + 1)
        order[last], order[other] = order[other], order[last]
    assert at_once.permutation(n) == order
    assert sorted(order) == list(range(n))
    assert at_once.integer(0, 2**50) == one_by_one.integer(0, 2**50), "what is drawn next is the same too"
