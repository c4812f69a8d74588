"""Words outside the lexicon: spellings that the word-piece CTC heard, put into a hypothesis of the lexicon beam.

The lexicon beam must explain every sound with words it knows; the word-piece CTC spells what it hears. Where its best
path spells a word that the lexicon lacks, that spelling takes the place of the words that the beam found there, and the
ranking decides between the two. Where the path spells nearly a word that the stream expects and the lexicon lacks, that
word is tried as well. Dimensions: T8 frames of 80 ms, V word pieces.
"""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Container, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from asr_service.decoding.greedy import greedy
from asr_service.decoding.hypothesis import TimedWord
from asr_service.tokenizer import WordPieces

# Frames of the phone CTC, in which the lexicon beam counts, to one of the word-piece CTC.
FRAMES_PER_PIECE_FRAME = 2
# Share of letters that a spelling must have in common with an expected word, counted over both.
NEAR = 0.7
# Expected words that are tried in one utterance: each is one more hypothesis to rank.
MAX_TRIED = 8


def spelled_words(pieces: WordPieces, log_probs: NDArray[np.float32]) -> list[TimedWord]:
    """The words of the best path through (T8, V), in the phone CTC's frames; each lasts until the next begins."""
    spelled: list[tuple[list[int], int]] = []
    for token in greedy(log_probs):
        if not spelled or pieces.starts_word(token.token_id):
            spelled.append(([], token.start_frame * FRAMES_PER_PIECE_FRAME))
        spelled[-1][0].append(token.token_id)
    starts = [start for _, start in spelled] + [len(log_probs) * FRAMES_PER_PIECE_FRAME]
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
        self._by_letter: dict[str, list[str]] = defaultdict(list)
        for word in sorted(self.words):
            self._by_letter[word[0]].append(word)

    def near(self, spelled: Sequence[TimedWord]) -> list[TimedWord]:
        """For spelled words the nearest expected ones that begin with the same letter, `MAX_TRIED` at most."""
        found: list[TimedWord] = []
        for word in spelled:
            candidates = self._by_letter.get(word.text[:1], [])
            nearest = difflib.get_close_matches(word.text, candidates, n=1, cutoff=NEAR)
            if nearest and nearest[0] != word.text and len(found) < MAX_TRIED:
                found.append(TimedWord(nearest[0], word.start_frame, word.end_frame))
        return found
