"""Transform lengths that are quick."""

from __future__ import annotations

import functools


@functools.cache
def _smooth_numbers(limit: int) -> tuple[int, ...]:
    """Even 5-smooth numbers below 4 * limit, in order: products of 2, 3 and 5 alone."""
    top = 4 * limit
    found = []
    two = 2
    while two < top:
        three = two
        while three < top:
            five = three
            while five < top:
                found.append(five)
                five *= 5
            three *= 3
        two *= 2
    return tuple(sorted(found))


def fast_length(samples: int) -> int:
    """The least even length, `samples` or more, whose only prime factors are 2, 3 and 5."""
    power = 1 << max(1, samples - 1).bit_length()
    return next(number for number in _smooth_numbers(power) if number >= samples)
