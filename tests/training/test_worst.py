"""The batches that are tried first are those that need the most memory, wherever in the epoch they are."""

from __future__ import annotations

from training.example import Example
from training.worst import worst_batches

# Utterances in the batch, seconds and tokens of each.
SHAPES = [
    (2, 3.0, 5),  # the first is the worst in nothing
    (10, 3.0, 9),
    (30, 1.5, 60),  # decoder, 108,000, and its bucket
    (20, 3.2, 30),  # its bucket; the next but one is longer in all, but not in padded seconds
    (2, 3.9, 10),
    (12, 7.0, 20),
    (11, 7.5, 60),  # lattice, 4,950
    (8, 15.0, 12),  # frames, 120
    (4, 25.0, 30),  # attention, 2,500
    (1, 30.0, 40),
]
EXAMPLES = [
    Example(batch, seconds, (1,) * tokens, (1,) * (tokens // 2), "s")
    for batch, (count, seconds, tokens) in enumerate(SHAPES)
    for _ in range(count)
]
BATCHES = [[i for i, example in enumerate(EXAMPLES) if example.index == batch] for batch in range(len(SHAPES))]


def worst(batches: list[list[int]]) -> dict[str, int]:
    return {name: EXAMPLES[chosen[0]].index for name, chosen in worst_batches(batches, EXAMPLES).items()}


def test_the_worst_of_every_measure_and_of_every_bucket_are_chosen() -> None:
    expected = {"frames": 7, "attention": 8, "decoder": 2, "lattice": 6}
    expected |= {"up to 2 s": 2, "up to 4 s": 3, "up to 8 s": 5, "up to 16 s": 7, "up to 32 s": 8}
    assert worst(BATCHES) == expected
    assert worst(BATCHES[::-1]) == expected


def test_phones_count_as_targets_where_there_are_more_of_them() -> None:
    examples = [Example(0, 2.0, (1,) * 5, (1,) * 5, "s"), Example(1, 2.0, (1,) * 2, (1,) * 20, "s")]
    assert worst_batches([[0], [1]], examples)["decoder"] == [1]
