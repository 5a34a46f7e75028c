"""Random numbers that stay the same for ever: every sampling decision of the loaders is made from them."""

from __future__ import annotations

import math

import numpy as np


class RandomStream:
    """A stream of random numbers that is decided by its key alone.

        RandomStream(seed, epoch, index).uniform(0.5, 1.0)

    The bits are Philox 4x64-10, a published algorithm (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
    2011). numpy keeps the bits of its bit generators, but lets the distributions of `np.random.Generator` change
    between versions (NEP 19), and with them every crop and every shuffle of a run that is resumed after an upgrade.
    So the few distributions needed here are made from the bits themselves.

    Two values of the key go into Philox's key words and two into the upper words of its counter; the lower two words
    count the numbers that were drawn. Each value is stored plus one and zero stands for "not given", so different keys,
    of different lengths too, are different streams: (1,) is not (1, 0).

    Args:
        *key: One to four integers in [0, 2**63).
    """

    __slots__ = ("_bits",)

    def __init__(self, *key: int) -> None:
        assert 1 <= len(key) <= 4, f"a key is one to four integers, not {key}"
        assert all(0 <= value < 2**63 for value in key), f"{key}: every value must lie in [0, 2**63)"
        first, second, third, fourth = [int(value) + 1 for value in key] + [0] * (4 - len(key))
        self._bits = np.random.Philox(
            key=np.array([first, second], dtype=np.uint64), counter=np.array([0, 0, third, fourth], dtype=np.uint64)
        )

    def uniform(self, low: float, high: float) -> float:
        """Draws a float from an interval, each part of it as likely as any other of the same length.

        Args:
            low: The lower end.
            high: The upper end, not below the lower one.

        Returns:
            A float in [low, high), or `low` where the two are equal.
        """
        assert low <= high, f"[{low}, {high}) is empty"
        value = low + (high - low) * (self._word() * 2.0**-53)
        return min(value, math.nextafter(high, low))  # the sum may round up to high

    def integer(self, low: int, high: int) -> int:
        """Draws an integer from an interval.

        It is the floor of a 53-bit uniform number: no value is more likely than another by more than a factor of
        1 + (high - low) / 2**53, which no run is long enough to see.

        Args:
            low: The lowest value.
            high: One more than the highest value.

        Returns:
            An integer in [low, high).
        """
        assert low < high, f"[{low}, {high}) is empty"
        return low + (self._word() * (high - low) >> 53)

    def chance(self, p: float) -> bool:
        """Draws whether something happens.

        Args:
            p: Its probability. It never happens for 0, and always for 1.

        Returns:
            True with this probability.
        """
        return self._word() * 2.0**-53 < p

    def permutation(self, n: int) -> list[int]:
        """Draws an order, each as likely as any other (Fisher-Yates).

        Args:
            n: The length of the order.

        Returns:
            The integers 0 to n - 1 in random order.
        """
        order = list(range(n))
        words = self._bits.random_raw(max(0, n - 1)).tolist()  # at once: an epoch may have millions of videos
        for last, word in zip(range(n - 1, 0, -1), words, strict=True):
            other = (word >> 11) * (last + 1) >> 53  # as in integer(0, last + 1)
            order[last], order[other] = order[other], order[last]
        return order

    def _word(self) -> int:
        """Draws 53 random bits, as many as the mantissa of a float holds."""
        return int(self._bits.random_raw()) >> 11
