"""When the words of a reference were said: forced alignment by a bundle's own phones, with the whole clip in view.

The latency of a word is measured from here. A recogniser's own word times would not do: what it heard late or did not
hear has none, and a time that is late makes a latency that is short.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr_service.decoding.timing import align_words
from asr_service.engine.frames import PHONE_FRAME_S
from asr_service.engine.runner import ModelRunner
from asr_service.errors import ConfigError, InvalidAudio
from asr_service.evaluation.normalizer import NORMALIZER_VERSION, normalize_transcript
from asr_service.model.bundle import Bundle
from asr_service.types import SAMPLE_RATE_HZ

# Bumped whenever the times of the same clip, text and bundle would change.
ALIGNMENT_VERSION = 3


class SpokenWord(NamedTuple):
    """A word of a reference, and when it was said, in seconds."""

    text: str
    start_s: float
    end_s: float


class ForcedAligner:
    """Places the words of a text on its recording by the phone CTC of `bundle`.

    Raises ConfigError for a bundle without phones.
    """

    def __init__(self, bundle: Bundle) -> None:
        if bundle.lexicon is None:
            raise ConfigError(f"model {bundle.name} has no phones and lexicon, to place words by", field="model")
        self._lexicon = bundle.lexicon
        self._runner = ModelRunner(bundle, streams=1, threads=1)

    def __call__(self, waveform: NDArray[np.float32], text: str) -> tuple[SpokenWord, ...]:
        """The words of `text`, normalised by `basic`, with their times in seconds; `waveform` is 16 kHz mono, (n,).

        Raises InvalidAudio where the recording is too short to hold them.
        """
        words = normalize_transcript(text).split()
        if not words:
            return ()
        features, _, _ = self._runner.features(waveform, np.zeros(0, dtype=np.float32), last=True)
        placed = None
        if len(features):
            placed = align_words(self._runner.encode_whole(features).phones, words, self._lexicon)
        if placed is None:
            length_s = len(waveform) / SAMPLE_RATE_HZ
            raise InvalidAudio(f"{len(words)} words do not fit into a recording of {length_s:.2f} s")
        length_s = len(waveform) / SAMPLE_RATE_HZ  # the last frame may reach beyond it
        return tuple(
            SpokenWord(word.text, word.start_frame * PHONE_FRAME_S, min(word.end_frame * PHONE_FRAME_S, length_s))
            for word in placed
        )


class AlignmentCache:
    """Alignments as JSON files, named by the hash of all that they depend on: samples, text, bundle, this code's rule.

    Args:
        folder: made when something is kept first.
        bundle_digest: of the bundle's files (asr_service.model.digest).
    """

    def __init__(self, folder: Path, bundle_digest: str) -> None:
        self._folder = folder
        self._rule = f"{ALIGNMENT_VERSION}\0{NORMALIZER_VERSION}\0{bundle_digest}"

    def get(self, waveform: NDArray[np.float32], text: str) -> tuple[SpokenWord, ...] | None:
        """None where it is not known, or the file is damaged."""
        try:
            rows = json.loads(self._path(waveform, text).read_text(encoding="utf-8"))["words"]
            return tuple(SpokenWord(str(word), float(start_s), float(end_s)) for word, start_s, end_s in rows)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def put(self, waveform: NDArray[np.float32], text: str, words: Sequence[SpokenWord]) -> None:
        """Raises ConfigError where the file cannot be written."""
        rows = [[word.text, round(word.start_s, 3), round(word.end_s, 3)] for word in words]
        path = self._path(waveform, text)
        half = path.with_suffix(f".{os.getpid()}")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            half.write_text(json.dumps({"words": rows}), encoding="utf-8")
            half.replace(path)  # a run that is killed leaves no half a file
        except OSError as error:
            raise ConfigError(f"cannot write {path}: {error.strerror}") from error

    def _path(self, waveform: NDArray[np.float32], text: str) -> Path:
        digest = hashlib.sha256(f"{self._rule}\0{text}\0".encode())
        digest.update(np.ascontiguousarray(waveform, dtype="<f4").tobytes())
        return self._folder / f"{digest.hexdigest()}.json"
