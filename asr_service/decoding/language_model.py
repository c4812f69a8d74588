"""The word n-gram, a KenLM model read by flashlight-text: one word at a time, scores in natural logarithms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from flashlight.lib.text.decoder import LMState
from flashlight.lib.text.decoder.kenlm import KenLM
from flashlight.lib.text.dictionary import Dictionary

from asr_service.errors import BundleError

LN10 = math.log(10.0)
UNKNOWN_WORD = "<unk>"


class WordLanguageModel:
    """An n-gram over `words`; any other word has the probability of <unk>. Read-only, shared by all searches.

    Attributes:
        words: by their ids.
        unknown_id: of a word that is not among them.
    """

    def __init__(self, path: Path, words: Sequence[str]) -> None:
        """Raises BundleError when the file is missing or no KenLM model."""
        if not path.is_file():
            raise BundleError(f"{path}: no such file", field=path.name)
        dictionary = Dictionary([*words, UNKNOWN_WORD])
        try:
            self._kenlm = KenLM(str(path), dictionary)
        except RuntimeError as error:
            raise BundleError(f"{path}: not a KenLM model: {error}", field=path.name) from None
        self.words = tuple(words)
        self.unknown_id = len(self.words)
        self._ids = {word: index for index, word in enumerate(self.words)}

    def index(self, word: str) -> int | None:
        """The id of a word, None for one that is not among `words`."""
        return self._ids.get(word)

    def unigram(self, index: int) -> float:
        """Return log10 p of a word, by its id, without context."""
        # A state keeps all that were reached from it: one for all words would hold 200 bytes a word for ever.
        return float(self._kenlm.score(self._kenlm.start(True), index)[1])

    def without_context(self, words: Sequence[str]) -> float:
        """Return Σ ln p(word): of each as if nothing stood before it."""
        return LN10 * sum(self.unigram(self._ids.get(word, self.unknown_id)) for word in words)

    def start(self) -> LMState:
        """The state at the begin of a sentence."""
        return self._kenlm.start(False)

    def score(self, state: LMState, word: str) -> tuple[LMState, float]:
        """The state after `word` and ln p(word | state)."""
        return self.score_id(state, self._ids.get(word, self.unknown_id))

    def score_id(self, state: LMState, index: int) -> tuple[LMState, float]:
        """As `score`, of a word by its id."""
        following, log10 = self._kenlm.score(state, index)
        return following, log10 * LN10

    def end(self, state: LMState) -> float:
        """Return ln p(end of sentence | state)."""
        return float(self._kenlm.finish(state)[1]) * LN10

    def sentence(self, words: Sequence[str]) -> float:
        """Return ln p of a whole sentence with its end."""
        state, total = self.start(), 0.0
        for word in words:
            state, log_prob = self.score(state, word)
            total += log_prob
        return total + self.end(state)
