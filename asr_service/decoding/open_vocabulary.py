"""Words outside the lexicon: spellings that the word-piece CTC heard, put into a hypothesis of the lexicon beam.

The lexicon beam must explain every sound with words it knows; the word-piece CTC spells what it hears. Where its best
path spells a word that the lexicon lacks, that spelling takes the place of the words that the beam found there, and the
ranking decides between the two. Where the path spells nearly a word that the stream expects and the lexicon lacks, that
word is tried as well. Dimensions: T8 frames of the word-piece CTC, V word pieces.
"""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from asr_service.decoding.greedy import greedy
from asr_service.decoding.hypothesis import TimedWord
from asr_service.parts import Parts
from asr_service.tokenizer import WordPieces

# Share of letters that a spelling must have in common with an expected word, counted over both.
NEAR = 0.7
# Expected words that are tried in one utterance: each is one more hypothesis to rank.
MAX_TRIED = 8
# What the comparisons of an utterance come to at most, and those of a part of it. Each counts the letters of the one
# word times those of the other, as it takes at worst: 10,000 of words of ten letters, 20 to 120 ms of CPU.
MAX_COMPARED = 1_000_000
PART_COMPARED = 20_000


def spelled_words(pieces: WordPieces, log_probs: NDArray[np.float32], *, ratio: int) -> list[TimedWord]:
    """The words of the best path through (T8, V), in the phone CTC's frames; each lasts until the next begins.

    `ratio`: frames of the phone CTC, in which the lexicon beam counts, to one of the word-piece CTC.
    """
    spelled: list[tuple[list[int], int]] = []
    for token in greedy(log_probs):
        if not spelled or pieces.starts_word(token.token_id):
            spelled.append(([], token.start_frame * ratio))
        spelled[-1][0].append(token.token_id)
    starts = [start for _, start in spelled] + [len(log_probs) * ratio]
    return [TimedWord(pieces.decode(ids), start, starts[i + 1]) for i, (ids, start) in enumerate(spelled)]


def with_spelled_words(
    words: Sequence[TimedWord], spelled: Sequence[TimedWord], known: Container[str]
) -> list[tuple[TimedWord, ...]]:
    """`words` with one spelled word that is not `known` in the place of those it overlaps most: one result for each.

    A word is replaced when its middle lies within the spelled word; a spelling that replaces nothing is left out.
    """
    results = []
    for new in spelled:
        if not new.text or new.text in known:
            continue
        inside = [
            index
            for index, word in enumerate(words)
            if new.start_frame <= (word.start_frame + word.end_frame) / 2 < new.end_frame
        ]
        if inside:
            first, last = inside[0], inside[-1]
            placed = TimedWord(new.text, words[first].start_frame, words[last].end_frame)
            results.append((*words[:first], placed, *words[last + 1 :]))
    return results


class ExpectedSpellings:
    """Words that a stream expects and that the lexicon lacks: nobody knows how they sound. Immutable."""

    def __init__(self, words: Iterable[str]) -> None:
        self.words = frozenset(words)
        self._by_letter: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))  # and by their length
        for word in sorted(self.words):
            self._by_letter[word[0]][len(word)].append(word)

    def near(self, spelled: Sequence[TimedWord]) -> Parts[list[TimedWord]]:
        """For spelled words the nearest expected ones that begin with the same letter, `MAX_TRIED` at most; where there
        is too much to compare, for the first of them.
        """
        found: list[TimedWord] = []
        nearest: dict[str, str] = {}  # to what was spelled; "": none is near
        compared = part = 0
        for word in spelled:
            if word.text in self.words:
                continue
            if word.text not in nearest:
                matcher, best = difflib.SequenceMatcher(b=word.text), (NEAR, "")
                for candidate in self._of_like_length(word.text):
                    cost = len(candidate) * len(word.text)
                    compared, part = compared + cost, part + cost
                    if compared > MAX_COMPARED:
                        return found
                    if part > PART_COMPARED:
                        part = cost
                        yield
                    matcher.set_seq1(candidate)
                    if matcher.quick_ratio() >= best[0]:  # an upper bound, and cheaper
                        best = max(best, (matcher.ratio(), candidate))
                nearest[word.text] = best[1]
            if nearest[word.text]:
                found.append(TimedWord(nearest[word.text], word.start_frame, word.end_frame))
                if len(found) == MAX_TRIED:
                    break
        return found

    def _of_like_length(self, text: str) -> Iterator[str]:
        """Those with its first letter that are neither too short nor too long to be near it."""
        for length, words in self._by_letter.get(text[:1], {}).items():
            if 2 * min(length, len(text)) / (length + len(text)) >= NEAR:
                yield from words
