"""Letter-to-sound for words outside the dictionary: how a dictionary is segmented into graphones.

The segmentation is learnt by EM over all alignments; `asr_service.letter_to_sound` makes an n-gram of the best ones.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from asr_service.letter_to_sound import Graphone
from asr_service.lexicon import Pronunciation

# (letters, phones) of a graphone. Letters may be silent, phones are never without a letter.
_SHAPES = ((1, 1), (1, 0), (2, 1), (1, 2), (2, 0))
_FLOOR = 1e-7


def align(
    entries: Sequence[tuple[str, Pronunciation]], iterations: int = 8, em_entries: int = 20_000
) -> list[list[Graphone]]:
    """Segment dictionary entries into graphones; entries that no segmentation fits are left out.

    EM runs on every k-th entry so that it sees about `em_entries`; the others only get their best path.
    """
    sample = entries[:: max(1, len(entries) // em_entries)]
    probability: dict[Graphone, float] = defaultdict(lambda: 1.0)
    for _ in range(iterations):
        counts: dict[Graphone, float] = defaultdict(float)
        for word, phones in sample:
            _accumulate(word, phones, probability, counts)
        total = sum(counts.values())
        probability = defaultdict(lambda: _FLOOR, {key: max(value / total, _FLOOR) for key, value in counts.items()})
    segmented = (_best_segmentation(word, phones, probability) for word, phones in entries)
    return [graphones for graphones in segmented if graphones]


def _edges(word: str, phones: Pronunciation) -> list[tuple[int, int, int, int, Graphone]]:
    """All graphones that fit, as (letter, phone, next letter, next phone, graphone) in topological order."""
    edges = []
    for i in range(len(word)):
        for j in range(len(phones) + 1):
            for letters, sounds in _SHAPES:
                if i + letters <= len(word) and j + sounds <= len(phones):
                    edges.append((i, j, i + letters, j + sounds, (word[i : i + letters], phones[j : j + sounds])))
    return edges


def _accumulate(
    word: str, phones: Pronunciation, probability: dict[Graphone, float], counts: dict[Graphone, float]
) -> None:
    """Add the posterior of each graphone in each alignment of one entry (forward-backward)."""
    edges = _edges(word, phones)
    end = (len(word), len(phones))
    forward: dict[tuple[int, int], float] = defaultdict(float, {(0, 0): 1.0})
    for i, j, k, m, graphone in edges:
        forward[k, m] += forward[i, j] * probability[graphone]
    if forward[end] <= 0.0:
        return
    backward: dict[tuple[int, int], float] = defaultdict(float, {end: 1.0})
    for i, j, k, m, graphone in reversed(edges):
        backward[i, j] += backward[k, m] * probability[graphone]
    for i, j, k, m, graphone in edges:
        posterior = forward[i, j] * probability[graphone] * backward[k, m] / forward[end]
        if posterior > 0.0:
            counts[graphone] += posterior


def _best_segmentation(word: str, phones: Pronunciation, probability: dict[Graphone, float]) -> list[Graphone]:
    best: dict[tuple[int, int], tuple[float, tuple[int, int], Graphone | None]] = {(0, 0): (1.0, (0, 0), None)}
    for i, j, k, m, graphone in _edges(word, phones):
        if (i, j) in best:
            score = best[i, j][0] * probability[graphone]
            if (k, m) not in best or score > best[k, m][0]:
                best[k, m] = (score, (i, j), graphone)
    node = (len(word), len(phones))
    if node not in best:
        return []
    path: list[Graphone] = []
    while node != (0, 0):
        _, node, step = best[node]
        assert step is not None
        path.append(step)
    return path[::-1]
