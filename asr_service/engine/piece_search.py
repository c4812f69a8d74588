"""Word pieces: CTC prefix beam while somebody speaks, then joint CTC/attention beam over the whole utterance.

For a bundle without a lexicon or a language model. Every spelling is possible; where there is a lexicon its words go
before others, and the phone CTC has a say in the joint beam's ranking. Its hypotheses go on from the stable words.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy as np
import torch

from asr_service.decoding.ctc_prefix_beam import CtcPrefixBeam, PrefixBeamOptions
from asr_service.decoding.hinted_pieces import HintedPieces
from asr_service.decoding.hypothesis import TimedWord
from asr_service.decoding.joint_beam import JointBeamOptions, joint_beam_search
from asr_service.decoding.phrase_hints import PhraseHints
from asr_service.decoding.rescoring import NO_ALIGNMENT, ctc_log_likelihoods
from asr_service.decoding.spelling import Spelling
from asr_service.decoding.stabiliser import shared_length
from asr_service.decoding.timing import WordGraph, best_path
from asr_service.engine.frames import FRAME_S
from asr_service.engine.runner import Encoded
from asr_service.engine.search import UtteranceSearch
from asr_service.lexicon import phone_ids
from asr_service.model.bundle import Bundle
from asr_service.parts import Parts
from asr_service.tokenizer import WordPieces


class PieceSearch(UtteranceSearch):
    """Live hypotheses by the prefix beam, finals by the joint beam."""

    def __init__(
        self,
        bundle: Bundle,
        live: PrefixBeamOptions,
        joint: JointBeamOptions,
        spelling: Spelling | None,
        *,
        limit: int,
        confidence_scale: float,
        agreement: int | None,
        hold_back_s: float = 0.0,
        hints: PhraseHints | None = None,
    ) -> None:
        """`agreement` None: no live hypotheses, which nobody would see. `hints`: what the stream expects to hear."""
        super().__init__(
            frame_s=bundle.model.config.output_subsampling * FRAME_S,
            limit=limit,
            confidence_scale=confidence_scale,
            agreement=agreement,
            hold_back_s=hold_back_s,
        )
        self._bundle, self._joint, self._spelling = bundle, joint, spelling
        self._hints = HintedPieces(hints, bundle.pieces.pieces) if hints is not None else None
        self._beam = CtcPrefixBeam(bundle.pieces.pieces, live, hints=self._hints)
        begins = [bundle.pieces.starts_word(token_id) for token_id in range(bundle.pieces.vocab_size)]
        self._begins_word = torch.tensor(begins)

    def reset(self) -> None:
        super().reset()
        self._beam.begin()

    def _advance(self, encoded: Encoded) -> tuple[int, Sequence[TimedWord]]:
        if not self._live:
            return self._frames + len(encoded.pieces), ()
        self._beam.step(encoded.pieces)
        return self._beam.frames, self._beam.best().words

    def _shared(self) -> int:
        # The last word of a hypothesis may still grow: it is never shared. Of all, the first and the last in order
        # differ as early as any two.
        texts = [hypothesis.texts[:-1] for hypothesis in self._beam.beam()]
        return shared_length(min(texts), max(texts))

    @torch.inference_mode()
    def _ranked(self) -> Parts[list[tuple[Sequence[TimedWord], float]]]:
        pieces, stable = self._pieces(), " ".join(word.text for word in self._stabiliser.stable)
        found = yield from joint_beam_search(
            self._bundle.model.decoder,
            self._hidden(),
            pieces,
            bos_id=WordPieces.bos_id,
            eos_id=WordPieces.eos_id,
            options=self._joint,
            spelling=self._spelling,
            hints=self._hints,
            prefix=self._bundle.pieces.encode(stable),
            after_prefix=self._begins_word,
        )
        pronounced = self._pronounced([self._bundle.pieces.decode(hypothesis.token_ids) for hypothesis in found])
        yield
        weight, log_probs = self._joint.phones, pieces.numpy()
        ranked: list[tuple[Sequence[TimedWord], float]] = []
        for hypothesis, phones in zip(found, pronounced, strict=True):
            words = self._align(hypothesis.token_ids, log_probs)
            yield
            if words is not None:
                ranked.append((words, hypothesis.score + weight * phones))
        # Where the frames hold none of them, the stable words remain.
        return sorted(ranked, key=lambda entry: -entry[1]) or [((), 0.0)]

    def _pronounced(self, texts: Sequence[str]) -> list[float]:
        """Log-likelihoods of the texts' phones under the phone CTC, each word's first pronunciation.

        Nobody knows how a text with other words than the lexicon's is pronounced: it is taken to fit as well as the
        middle one of those that are known.
        """
        lexicon = self._bundle.lexicon
        if lexicon is None:
            return [0.0] * len(texts)
        are_known = [all(word in lexicon for word in text.split()) for text in texts]
        spoken = [
            [phone for word in text.split() for phone in phone_ids(lexicon[word][0])]
            for text, is_known in zip(texts, are_known, strict=True)
            if is_known
        ]
        if not spoken:
            return [0.0] * len(texts)
        fits = ctc_log_likelihoods(self._phones(), spoken).clamp(min=NO_ALIGNMENT).tolist()
        middle, known = statistics.median(fits), iter(fits)
        return [next(known) if is_known else middle for is_known in are_known]

    def _align(self, token_ids: Sequence[int], log_probs: np.ndarray) -> list[TimedWord] | None:
        """Words with their frames, by forced alignment of their pieces; None when the frames cannot hold them."""
        groups: list[list[int]] = []
        for token_id in token_ids:
            if not groups or self._bundle.pieces.starts_word(token_id):
                groups.append([])
            groups[-1].append(token_id)
        graph = WordGraph([[group] for group in groups])
        path = best_path(log_probs, graph)
        if path is None:
            return None
        words = []
        for index, group in enumerate(groups):
            frames = [frame for frame, state in enumerate(path) if graph.word_of[state] == index]
            words.append(TimedWord(self._bundle.pieces.decode(group), frames[0], frames[-1] + 1))
        return words
