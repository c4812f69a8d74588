"""The peer of `against_faster_whisper`: faster-whisper under LocalAgreement-2, as whisper_streaming runs it.

Source of the policy: ufal/whisper_streaming, whisper_online.py (OnlineASRProcessor, HypothesisBuffer); Macháček et al.
2023, "Turning Whisper into Real-Time Transcription System". What the words are does not matter here, when they are
heard does: the window is recognised anew each turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.engine_in_process import SAMPLE_RATE_HZ
from benchmarks.random_whisper import TIMESTAMPS, Dimensions, random_whisper

TRIM_S = 15.0  # whisper_streaming's `buffer_trimming_sec`
PROMPT_TOKENS = 50
# Start of transcript, no timestamps; a prompt comes with one more token before it.
START_TOKENS = 2
OPTIONS: dict[str, dict[str, Any]] = {
    "lean": {"beam_size": 1},
    "as published": {"beam_size": 5},
}


def windows(length_s: float, chunk_s: float, sentence_s: float) -> list[tuple[float, float]]:
    """(begin, end) in seconds of what LocalAgreement-2 has to recognise, turn by turn."""
    begin = committed = 0.0
    turns = []
    for end in np.arange(chunk_s, length_s + 1e-9, chunk_s).tolist():
        turns.append((begin, end))
        committed = end - chunk_s  # what the window before ended with has now been heard twice
        if end - begin > TRIM_S:
            sentence = committed // sentence_s * sentence_s
            begin = sentence if sentence > begin else committed
    return turns


class Peer:
    """faster-whisper, int8, one thread."""

    def __init__(self, directory: Path, dimensions: Dimensions, tokens_per_s: float) -> None:
        from faster_whisper import WhisperModel

        random_whisper(directory, dimensions)
        self._model = WhisperModel(str(directory), device="cpu", compute_type="int8", cpu_threads=1, num_workers=1)
        first_special = self._model.hf_tokenizer.token_to_id("<|endoftext|>")
        special = range(first_special, self._model.hf_tokenizer.get_vocab_size() + TIMESTAMPS)
        self._suppressed = [-1, *special]  # chance would end it, or fill it with what is no text
        self._tokens_per_s = tokens_per_s
        self.asked = self.made = 0

    def listen(self, audio: NDArray[np.float32], turns: Sequence[tuple[float, float]], options: str) -> None:
        for begin, end in turns:
            wanted = max(2, round(self._tokens_per_s * (end - begin)))
            prompt = range(PROMPT_TOKENS) if options == "as published" else ()
            given = START_TOKENS + len(prompt) + bool(prompt)
            segments, _ = self._model.transcribe(
                audio[round(begin * SAMPLE_RATE_HZ) : round(end * SAMPLE_RATE_HZ)],
                language="en",
                temperature=0.0,
                compression_ratio_threshold=None,
                log_prob_threshold=None,
                no_speech_threshold=None,
                without_timestamps=True,  # random times would send it over the window again and again
                suppress_tokens=self._suppressed,
                # CTranslate2 makes min(L/2, L - given) tokens, L = given + max_new_tokens.
                max_new_tokens=max(2 * wanted - given, wanted),
                initial_prompt=prompt or None,
                **OPTIONS[options],
            )
            self.asked += wanted
            self.made += sum(len(segment.tokens) for segment in segments)
