"""What a bundle makes of test utterances, through the same engine and sessions that serve: counts, not opinions.

A `Measurement` keeps the errors of every utterance, so that intervals can be drawn later, over seeds too.
"""

from __future__ import annotations

import dataclasses
import io
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import jiwer
import numpy as np
import soundfile
from numpy.typing import NDArray

from asr_service.config import Settings
from asr_service.engine.engine import BatchingEngine
from asr_service.evaluation.wer import word_errors
from asr_service.model.bundle import Bundle
from asr_service.streaming.transcribe import transcribe_bytes
from asr_service.types import Mode, RecognitionConfig
from training.data import SAMPLE_RATE_HZ, Utterance, decode

_CHUNK_BYTES = 64 * 1024
MAX_CONFUSIONS = 20


@dataclass(frozen=True, slots=True)
class Measurement:
    """One bundle, mode and corpus.

    Attributes:
        errors, words: of each utterance: word errors, and words of the reference.
        real_time_factor: seconds of work to a second of audio.
        confusions: reference word, hypothesis word ("" for none) and count, most frequent first.
    """

    errors: tuple[int, ...]
    words: tuple[int, ...]
    real_time_factor: float
    confusions: tuple[tuple[str, str, int], ...] = ()

    @property
    def wer(self) -> float:
        return sum(self.errors) / max(1, sum(self.words))

    @property
    def accuracy(self) -> float:
        """Share of the utterances without an error."""
        return sum(error == 0 for error in self.errors) / len(self.errors)


def measure(bundle: Bundle, utterances: Sequence[Utterance], mode: Mode, *, with_lm: bool = True) -> Measurement:
    """Recognise `utterances` one after the other; without the language model the word pieces are searched alone."""
    if not with_lm:
        bundle = dataclasses.replace(bundle, lm_path=None)
    begun = time.monotonic()
    hypotheses = recognise(bundle, utterances, mode)
    elapsed_s = time.monotonic() - begun
    references = [utterance.text for utterance in utterances]
    counts = [word_errors(reference, hypothesis) for reference, hypothesis in zip(references, hypotheses, strict=True)]
    return Measurement(
        errors=tuple(count.errors for count in counts),
        words=tuple(count.reference_words for count in counts),
        real_time_factor=elapsed_s / sum(utterance.duration_s for utterance in utterances),
        confusions=confusions(references, hypotheses),
    )


def recognise(bundle: Bundle, utterances: Sequence[Utterance], mode: Mode) -> list[str]:
    """Transcripts of the utterances, one after the other, by an engine and sessions as they serve."""
    settings = Settings()
    engine = BatchingEngine(bundle, settings.engine)
    engine.start()
    config = RecognitionConfig(mode=mode)
    try:
        return [
            " ".join(
                final.alternatives[0].text
                for final in transcribe_bytes(engine, _bytes(utterance), config, settings=settings)
            )
            for utterance in utterances
        ]
    finally:
        engine.stop()


def confusions(references: Sequence[str], hypotheses: Sequence[str]) -> tuple[tuple[str, str, int], ...]:
    """The commonest substitutions, deletions and insertions of normalised, non-empty references."""
    pairs: Counter[tuple[str, str]] = Counter()
    for reference, hypothesis in zip(references, hypotheses, strict=True):
        aligned = jiwer.process_words(reference, hypothesis)
        said, heard = aligned.references[0], aligned.hypotheses[0]
        for chunk in aligned.alignments[0]:
            if chunk.type == "equal":
                continue
            left = said[chunk.ref_start_idx : chunk.ref_end_idx] or [""] * (chunk.hyp_end_idx - chunk.hyp_start_idx)
            right = heard[chunk.hyp_start_idx : chunk.hyp_end_idx] or [""] * len(left)
            pairs.update(zip(left, right, strict=True))
    ordered = sorted(pairs.items(), key=lambda item: (-item[1], item[0]))
    return tuple((said, heard, count) for (said, heard), count in ordered[:MAX_CONFUSIONS])


def bootstrap_interval(
    errors: NDArray[np.int64], words: NDArray[np.int64], *, level: float = 0.95, samples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Interval of the mean WER of S runs on the same N utterances: (S, N) errors, (N,) words.

    Utterances are drawn with replacement, the same for every run (Bisani and Ney 2004): what another test set of this
    kind would give these very models. How much the runs differ is told beside it.
    """
    draws = np.random.default_rng(seed).integers(0, len(words), size=(samples, len(words)))
    rates = errors.mean(axis=0)[draws].sum(axis=1) / np.maximum(1, words[draws].sum(axis=1))
    low, high = np.quantile(rates, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _bytes(utterance: Utterance) -> Iterator[bytes]:
    """The file as it is, or the utterance's part of it as a WAV file."""
    if utterance.offset_s is not None:
        wav = io.BytesIO()
        soundfile.write(wav, decode(utterance), SAMPLE_RATE_HZ, format="WAV")
        yield wav.getvalue()
        return
    with utterance.path.open("rb") as file:
        while piece := file.read(_CHUNK_BYTES):
            yield piece
