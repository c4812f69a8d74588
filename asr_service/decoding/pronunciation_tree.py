"""The lexicon as a prefix tree with a language model: built once, shared by every search.

flashlight-text's tree search has no silence here (its silence token gets an impossible column), and it lets a path
stay on a phone only while the path is inside a word: after the last phone it is at the root again, where only blank
may follow. CTC lets the last phone go on for several frames like any other. So each pronunciation is entered twice,
over a doubled phone inventory: "K AE T" ends with a T of one frame, and "K AE T T+" ends with the last frame of a
longer T, T+ being a second name for the column of T. The two hold every CTC alignment of the word exactly once.

They hold a little more than CTC allows, about blanks between equal phones: T, blank, T at the end of a word passes for
one T, and a long last T may be followed at once by a word that starts with T. Where that matters, score the chosen
phones again (`BeamHypothesis.phone_ids`).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from flashlight.lib.text.decoder import SmearingMode, Trie
from numpy.typing import NDArray

from asr_service.config import PhraseHintSettings
from asr_service.decoding.language_model import WordLanguageModel
from asr_service.lexicon import BLANK_ID, PHONE_IDS, PHONE_VOCABULARY_SIZE, Lexicon

# Columns: blank, the phones, their second names, and one that never happens (the search's silence).
COLUMNS = 2 * PHONE_VOCABULARY_SIZE
NEVER_COLUMN = COLUMNS - 1
# flashlight keeps six words an entry of the tree.
MAX_HOMOPHONES = 6
IMPOSSIBLE = np.float32(-1e9)
# At most 0.008 in all: it decides between equals alone.
_TIE_BREAK, _TIE_BREAK_FRAMES = 4e-6, 2048


class PronunciationTree:
    """Prefix tree over phones whose nodes know the best unigram score below them, and the n-gram it came from.

    Immutable after construction: any number of searches, on any thread, may share it.
    """

    def __init__(self, lexicon: Lexicon, lm_path: Path) -> None:
        """Raises BundleError when the language model cannot be read."""
        self.words = tuple(lexicon)
        self.known = frozenset(self.words)
        self.language_model = WordLanguageModel(lm_path, self.words, spares=PhraseHintSettings.MOST_PHRASES)
        # The tree looks ahead by the unigrams, without the sentence's begin as context: most words are not its
        # first. In log10, as the library's own scores are.
        unigrams = [self.language_model.unigram(index) for index in range(len(self.words))]
        self.tree = Trie(COLUMNS, BLANK_ID)
        self.dropped_homophones = 0
        taken: dict[tuple[int, ...], int] = {}
        # Likeliest first, so that the rarest homophones are the ones that find no room.
        for index in sorted(range(len(self.words)), key=unigrams.__getitem__, reverse=True):
            for pronunciation in lexicon[self.words[index]]:
                spelling = tuple(PHONE_IDS[phone] for phone in pronunciation)
                count = taken.get(spelling, 0)
                if count == MAX_HOMOPHONES:
                    self.dropped_homophones += 1
                    continue
                taken[spelling] = count + 1
                self.tree.insert(list(spelling), index, unigrams[index])
                self.tree.insert([*spelling, second_name(spelling[-1])], index, unigrams[index])
        self.tree.smear(SmearingMode.MAX)


def second_name(phone_id: int) -> int:
    """The column that repeats `phone_id`'s as the last frame of a long final phone."""
    return phone_id + PHONE_VOCABULARY_SIZE - 1


def with_second_names(log_probs: NDArray[np.float32], first_frame: int) -> NDArray[np.float32]:
    """Log-probabilities (T, 40) of the phone CTC as the (T, 80) columns of the tree.

    `first_frame` is the utterance's frame in row 0: the second names get slowly less likely with it. Where a word ends
    with the phone that the next begins with, all places of the boundary would score the same, and the library would
    take any.
    """
    columns = np.full((log_probs.shape[0], COLUMNS), IMPOSSIBLE, dtype=np.float32)
    columns[:, :PHONE_VOCABULARY_SIZE] = log_probs
    frames = np.arange(first_frame, first_frame + log_probs.shape[0]) % _TIE_BREAK_FRAMES
    columns[:, PHONE_VOCABULARY_SIZE:NEVER_COLUMN] = log_probs[:, 1:] - _TIE_BREAK * frames[:, None]
    return columns
