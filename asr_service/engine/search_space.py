"""What all searches of a model share, and which search a stream gets."""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch

from asr_service.config import PhraseHintSettings
from asr_service.decoding.config import DecodingConfig
from asr_service.decoding.hinted_tree import HintedTree
from asr_service.decoding.lexicon_beam import LexiconBeam
from asr_service.decoding.phrase_hints import PhraseHints
from asr_service.decoding.pronunciation_tree import PronunciationTree
from asr_service.decoding.rescoring import ctc_log_likelihoods
from asr_service.decoding.spelling import Spelling
from asr_service.decoding.word_features import WordConfidence, WordFeatures
from asr_service.engine.hinted_trees import HintedTrees, Hold, TreeKey
from asr_service.engine.interface import StreamOptions
from asr_service.engine.lexicon_search import LexiconSearch
from asr_service.engine.piece_search import PieceSearch
from asr_service.engine.search import UtteranceSearch
from asr_service.letter_to_sound import LetterToSound
from asr_service.lexicon import PHONE_VOCABULARY_SIZE, Pronunciation
from asr_service.model.bundle import Bundle
from asr_service.types import Mode, PhraseHint

# In a bundle's directory, where it has one: how words sound that its lexicon lacks.
LETTER_TO_SOUND_FILE = "letter_to_sound.json.gz"
# Such a word's likeliest pronunciations that are looked for.
GUESSES = 3
# Between two words: guessing one takes about 1 ms of CPU a letter.
PAUSE_S = 0.01


class SearchSpace:
    """Prefix tree, n-gram and search settings of a bundle.

    Attributes:
        word_features: of the lexicon search's hypotheses; None for a bundle that has none.
    """

    def __init__(self, bundle: Bundle) -> None:
        """Raises BundleError for an n-gram or letter-to-sound model that cannot be read, or a wrong search setting."""
        self._bundle = bundle
        self._config = DecodingConfig.from_dict(bundle.decoding)
        self._tree: PronunciationTree | None = None
        self.word_features: WordFeatures | None = None
        if bundle.lexicon is not None and bundle.lm_path is not None:
            self._tree = PronunciationTree(bundle.lexicon, bundle.lm_path)
            LexiconBeam(self._tree).step(np.zeros((1, PHONE_VOCABULARY_SIZE), dtype=np.float32))  # compiles the search
            ctc_log_likelihoods(torch.zeros(1, 2), [[1]])  # compiles the final pass
            self.word_features = WordFeatures(
                bundle.pieces, self._tree.language_model, posterior_scale=self._config.confidence_scale
            )
        self._trees = HintedTrees(self._build_hinted_tree)
        self._letter_to_sound: Callable[[], LetterToSound] | None = None  # called for a word that nobody knows
        if (path := bundle.directory / LETTER_TO_SOUND_FILE).is_file():
            self._letter_to_sound = LetterToSound.read(path)
        self._guessed = functools.lru_cache(PhraseHintSettings.MOST_PHRASES)(self._guess)
        self._spelling: Spelling | None = None
        if bundle.lexicon is not None and self._tree is None:
            self._spelling = Spelling(bundle.lexicon, bundle.pieces.pieces, self._config.joint.unknown)

    def _confidence(self, mode: Mode) -> WordConfidence | None:
        """What gives words their confidence, where the bundle has weights for that."""
        confidence = self._config.confidence
        weights = confidence.accurate if mode is Mode.ACCURATE else confidence.streaming
        return WordConfidence(self.word_features, weights) if self.word_features and weights else None

    def prepare(self, mode: Mode, phrase_hints: tuple[PhraseHint, ...]) -> Hold | None:
        """Make ready the tree for what a stream expects to hear, on any thread: 10 ms of CPU for 100 words that the
        lexicon has, and the time to guess the others. It is there while the result is held; None: nothing to build.
        """
        key = self._tree_key(mode, phrase_hints)
        return self._trees.prepare(key) if key is not None else None

    def ready(self, mode: Mode, phrase_hints: tuple[PhraseHint, ...]) -> Hold | None:
        """As `prepare` where nothing is to be built, without a wait; None where something is."""
        key = self._tree_key(mode, phrase_hints)
        return self._trees.ready(key) if key is not None else Hold()

    def hinted_tree(self, mode: Mode, phrase_hints: tuple[PhraseHint, ...]) -> HintedTree | None:
        """The tree for what a stream expects to hear; what was not prepared is built here."""
        key = self._tree_key(mode, phrase_hints)
        return self._trees.get(key) if key is not None else None

    def _tree_key(self, mode: Mode, phrase_hints: tuple[PhraseHint, ...]) -> TreeKey | None:
        beam = self._config.accurate if mode is Mode.ACCURATE else self._config.streaming
        return (phrase_hints, beam.lm_weight) if phrase_hints and self._tree is not None else None

    def searches(self, options: StreamOptions) -> Callable[[], UtteranceSearch]:
        """What makes the search of a stream at no great cost: what is slow is done when this returns."""
        return functools.partial(self._new_search, options, self.hinted_tree(options.mode, options.phrase_hints))

    def new_search(self, options: StreamOptions) -> UtteranceSearch:
        """The search of a stream."""
        return self.searches(options)()

    def _new_search(self, options: StreamOptions, hinted: HintedTree | None) -> UtteranceSearch:
        config, accurate = self._config, options.mode is Mode.ACCURATE
        agreement = None if accurate else config.agreement
        limit = max(1, options.max_alternatives)
        if self._tree is None:
            return PieceSearch(
                self._bundle,
                config.pieces,
                config.joint,
                self._spelling,
                limit=limit,
                confidence_scale=config.confidence_scale,
                agreement=agreement,
                hold_back_s=config.hold_back_s,
                hints=PhraseHints(options.phrase_hints) or None,
            )
        beam = config.accurate if accurate else config.streaming
        return LexiconSearch(
            self._bundle,
            self._tree,
            beam,
            config.rescoring,
            n_best=config.n_best if accurate else config.streaming_n_best,
            neural_margin=config.neural_margin if accurate else config.streaming_neural_margin,
            limit=limit,
            confidence_scale=config.confidence_scale,
            agreement=agreement,
            hold_back_s=config.hold_back_s,
            word_confidence=self._confidence(options.mode),
            hinted=hinted,
        )

    def _build_hinted_tree(self, phrase_hints: tuple[PhraseHint, ...], lm_weight: float) -> HintedTree | None:
        hints = PhraseHints(phrase_hints)
        if not hints or self._tree is None or self._bundle.lexicon is None:
            return None
        words = (word for phrase in hints.boosts for word in phrase)
        unknown = dict.fromkeys(word for word in words if word not in self._tree.known)
        guesses = {word: self._guessed(word) for word in _worth_guessing(unknown)}
        return HintedTree(self._tree, self._bundle.lexicon, hints, lm_weight, lambda word: guesses.get(word, ()))

    def _guess(self, word: str) -> tuple[Pronunciation, ...]:
        """How it may sound: a word that the lexicon lacks; none where the bundle does not know how letters sound."""
        if self._letter_to_sound is None:
            return ()
        guesses = tuple(self._letter_to_sound().pronounce(word, n_best=GUESSES))
        # It is Python all along, and the engine's thread waits for the interpreter after each of its operations.
        time.sleep(PAUSE_S)
        return guesses


def _worth_guessing(words: Iterable[str]) -> Iterator[str]:
    """The first of those that are not too long, until they are too many or have too many letters."""
    short = (word for word in words if len(word) <= PhraseHintSettings.LONGEST_GUESSED)
    left = PhraseHintSettings.MOST_GUESSED_LETTERS
    for word in itertools.islice(short, PhraseHintSettings.MOST_GUESSED):
        left -= len(word)
        if left < 0:
            return
        yield word
