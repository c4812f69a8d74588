"""Speech with known word times: the C library of espeak-ng, which tells when it speaks each phone.

See espeak-ng's speak_lib.h for the events. One library has one synthesiser: one text at a time.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr_service.evaluation.forced_alignment import SpokenWord

SYNCHRONOUS, PHONEME_EVENTS, CHARS_UTF8, POS_CHARACTER = 2, 1, 1, 1
WORD, PHONEME = 1, 7
# What the names of pauses begin with.
PAUSE = b"_"


class _Id(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class Espeak:
    """The synthesiser. Raises OSError where espeak-ng is not installed."""

    rate_hz: int

    def __init__(self) -> None:
        self._library, self.rate_hz = _library()

    @staticmethod
    def installed() -> bool:
        return ctypes.util.find_library("espeak-ng") is not None

    def say(self, text: str) -> tuple[NDArray[np.float32], list[SpokenWord]]:
        """Speak `text`, words with single spaces between: samples at `rate_hz`, (n,), and its words, each from its
        first phone to the end of its last one; NaN for words that espeak-ng speaks as one (`of the`).
        """
        pcm: list[NDArray[np.int16]] = []
        events: list[tuple[int, int, int, int, bytes]] = []

        def on_samples(wave: Any, count: int, told: Any) -> int:
            if count > 0:
                pcm.append(np.ctypeslib.as_array(wave, (count,)).copy())
            index = 0
            while (event := told[index]).type:
                name = event.id.string if event.type == PHONEME else b""
                events.append((event.type, event.text_position, event.length, event.sample, name))
                index += 1
            return 0

        callback = _Callback(on_samples)
        self._library.espeak_SetSynthCallback(callback)
        data = text.encode()
        status = self._library.espeak_Synth(data, len(data) + 1, 0, POS_CHARACTER, 0, CHARS_UTF8, None, None)
        if status or not pcm:
            raise OSError(f"espeak-ng spoke nothing of {text!r} (status {status})")
        return np.concatenate(pcm).astype(np.float32) / np.float32(32768), self._words(text, events)

    def _words(self, text: str, events: list[tuple[int, int, int, int, bytes]]) -> list[SpokenWord]:
        spans: dict[int, tuple[int, int]] = {}  # by the word's place in the text, in samples
        word, start = -1, -1
        for kind, position, _, sample, phone in events:
            is_phone = kind == PHONEME and phone != b"" and not phone.startswith(PAUSE)
            if start >= 0 and not is_phone:
                spans[word], start = (start, sample), -1
            if kind == WORD:
                word = position - 1
            elif is_phone and start < 0 and word not in spans:
                start = sample
        words = []
        at = 0
        for name in text.split(" "):
            # What follows without a place of its own was spoken with this word.
            alone = at in spans and (at + len(name) + 1 >= len(text) or at + len(name) + 1 in spans)
            begin, end = spans[at] if alone else (np.nan, np.nan)
            words.append(SpokenWord(name, begin / self.rate_hz, end / self.rate_hz))
            at += len(name) + 1
        return words


@functools.cache
def _library() -> tuple[Any, int]:
    library = ctypes.CDLL(ctypes.util.find_library("espeak-ng") or "libespeak-ng.so.1")
    rate_hz = library.espeak_Initialize(SYNCHRONOUS, 0, None, PHONEME_EVENTS)
    if rate_hz <= 0 or library.espeak_SetVoiceByName(b"en-us"):
        raise OSError("espeak-ng has no voice en-us")
    return library, rate_hz
