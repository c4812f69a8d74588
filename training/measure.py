"""What a bundle makes of test utterances, through the same engine and sessions that serve: counts, not opinions.

A `Measurement` keeps the errors of every utterance, so that intervals can be drawn later, over seeds too.
"""

from __future__ import annotations

import dataclasses
import io
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import soundfile

from asr_service.config import Settings
from asr_service.engine.engine import BatchingEngine
from asr_service.evaluation.confusions import confusions
from asr_service.evaluation.result import Evaluation
from asr_service.evaluation.scoring import score
from asr_service.model.bundle import Bundle
from asr_service.streaming.transcribe import transcribe_bytes
from asr_service.types import Mode, RecognitionConfig
from training.data import SAMPLE_RATE_HZ, Utterance, decode

_CHUNK_BYTES = 64 * 1024


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
    scored = score([utterance.text for utterance in utterances], hypotheses)
    return Measurement(
        errors=tuple(utterance.words.errors for utterance in scored.utterances),
        words=tuple(utterance.words.reference_words for utterance in scored.utterances),
        real_time_factor=elapsed_s / sum(utterance.duration_s for utterance in utterances),
        confusions=all_confusions(scored),
    )


def all_confusions(scored: Evaluation) -> tuple[tuple[str, str, int], ...]:
    """Errors of all kinds together, most frequent first: reference word, hypothesis word ("" for none) and count."""
    kinds = confusions(scored, top=sys.maxsize)
    every = [*kinds.substitutions, *kinds.deletions, *kinds.insertions]
    every.sort(key=lambda error: (-error.count, error.reference, error.hypothesis))
    return tuple((error.reference, error.hypothesis, error.count) for error in every)


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
