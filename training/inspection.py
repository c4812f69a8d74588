"""Is an utterance fit to learn from? Its audio is read and its text looked at; each fault has a name and a detail."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from asr_service.evaluation.normalizer import dropped_characters
from asr_service.tokenizer import WordPieces
from training.importers.record import Record
from training.tokenizer import NORMALIZERS

# What can be wrong with an utterance; the last three are found by comparing it with the others.
REASONS = {
    "unreadable": "the file is missing, or no decoder reads it",
    "truncated": "the audio ends before the file, the corpus or the segment says",
    "duration_mismatch": "the audio is longer than the corpus says",
    "not_finite": "samples that are NaN or infinite",
    "all_zero": "every sample is zero",
    "low_sample_rate": "fewer samples a second than telephone speech has",
    "empty_text": "no text is left after normalisation",
    "unknown_characters": "normalisation would drop letters, digits or spoken signs, or the tokenizer lacks them",
    "annotation": "marks such as [noise], <unk>, {laugh}, ((unclear)) or !SIL, whose words would be learned",
    "too_fast": "more characters a second than anybody speaks",
    "too_slow": "fewer characters a second than speech has",
    "duplicate_id": "an utterance before has the same id",
    "duplicate_audio": "an utterance before has the same samples",
    "duplicate_text": "an utterance before has the same text (three words or more), speaker and number of samples",
}
# What transcribers put between the words that were said. Normalisation cannot tell: in some corpora brackets hold words
# that were said, too, which is what `--keep annotation` is for.
_ANNOTATION = re.compile(
    r"\[[^\[\]]+\]|<[^<>\s][^<>]*>|\{[^{}]+\}|\(\([^()]*\)\)|(?<!\S)!(?:SIL|NULL|ENTER|EXIT)\b", re.IGNORECASE
)
_BLOCK_SAMPLES = 1 << 20
_OGG_PAGE_BYTES = 65_307  # at most


@dataclass(frozen=True, slots=True)
class Limits:
    """What counts as a fault.

    Args:
        min_sample_rate_hz: of the file.
        min_chars_per_s, max_chars_per_s: of the normalised text, spaces among it.
        tolerance_s, tolerance: how far a duration may be from the corpus's: the larger of seconds and share.
    """

    min_sample_rate_hz: int = 8_000
    min_chars_per_s: float = 0.5
    max_chars_per_s: float = 30.0
    tolerance_s: float = 0.1
    tolerance: float = 0.02

    def allowed_s(self, duration_s: float) -> float:
        return max(self.tolerance_s, self.tolerance * duration_s)


@dataclass(frozen=True, slots=True)
class Audio:
    """What the samples of an utterance are: their number, rate (Hz) and a digest of their values."""

    n_samples: int
    sample_rate_hz: int
    digest: str

    @property
    def duration_s(self) -> float:
        return self.n_samples / self.sample_rate_hz


@dataclass(frozen=True, slots=True)
class Inspection:
    """An utterance with its faults: (reason, detail) in the order they were found. `audio` is None where unreadable."""

    record: Record
    normalized: str
    audio: Audio | None
    faults: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Inspector:
    """Inspects one utterance after the other; made once, and sent to each process."""

    limits: Limits = Limits()
    normalizer: str = "transcript"
    tokenizer: Path | None = None

    def __call__(self, record: Record) -> Inspection:
        audio, faults = inspect_audio(record, self.limits)
        normalized = NORMALIZERS[self.normalizer].apply(record.text)
        faults += self._of_text(record.text, normalized, audio)
        return Inspection(record, normalized, audio, tuple(faults))

    def _of_text(self, text: str, normalized: str, audio: Audio | None) -> list[tuple[str, str]]:
        faults = []
        dropped = dropped_characters(text) if self.normalizer == "transcript" else ""
        if self.tokenizer is not None:
            pieces = _pieces(self.tokenizer)
            dropped += "" if pieces.has_bytes else "".join(pieces.unknown_characters(normalized))
        if dropped:
            faults.append(("unknown_characters", " ".join(dict.fromkeys(dropped))))
        if annotations := _ANNOTATION.findall(text):
            faults.append(("annotation", " ".join(dict.fromkeys(annotations))[:80]))
        if not normalized:
            faults.append(("empty_text", repr(text)[:80]))
        elif audio is not None and audio.n_samples:
            rate = len(normalized) / audio.duration_s
            detail = f"{rate:.1f} characters a second: {len(normalized)} in {audio.duration_s:.2f} s"
            if rate > self.limits.max_chars_per_s:
                faults.append(("too_fast", detail))
            elif rate < self.limits.min_chars_per_s:
                faults.append(("too_slow", detail))
        return faults


@functools.cache
def _pieces(path: Path) -> WordPieces:
    return WordPieces.load(path)


def inspect_audio(record: Record, limits: Limits) -> tuple[Audio | None, list[tuple[str, str]]]:
    """Read the samples of an utterance block by block; (None, faults) where nothing could be read."""
    digest = hashlib.blake2b(digest_size=16)
    n_samples, finite, peak = 0, True, 0.0
    try:
        with soundfile.SoundFile(record.audio) as file:
            rate = file.samplerate
            first = round(record.offset_s * rate)
            wanted = file.frames - first
            if record.segment and record.duration_s is not None:
                wanted = round(record.duration_s * rate)
            if first >= file.frames > 0:
                detail = f"begins at {record.offset_s:g} s, the file has {file.frames / rate:.2f} s"
                return None, [("truncated", detail)]
            file.seek(first)
            for block in _blocks(file, wanted):
                digest.update(block.tobytes())
                n_samples += len(block)
                finite = finite and bool(np.isfinite(block).all())
                peak = max(peak, float(np.abs(block).max()))
    except (soundfile.SoundFileError, OSError, RuntimeError) as error:
        return None, [("unreadable", str(error))]
    audio = Audio(n_samples, rate, digest.hexdigest())
    faults = _of_length(record, audio, wanted, limits)
    if not finite:
        faults.append(("not_finite", ""))
    elif peak == 0.0 and n_samples:
        faults.append(("all_zero", f"{audio.duration_s:.2f} s"))
    if rate < limits.min_sample_rate_hz:
        faults.append(("low_sample_rate", f"{rate} Hz, at least {limits.min_sample_rate_hz}"))
    return audio, faults


def _blocks(file: soundfile.SoundFile, wanted: int) -> Iterator[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    """Up to `wanted` frames, as (N, channels) blocks."""
    while wanted > 0:
        block = file.read(min(wanted, _BLOCK_SAMPLES), dtype="float32", always_2d=True)
        if not len(block):
            return
        wanted -= len(block)
        yield block


def _of_length(record: Record, audio: Audio, wanted: int, limits: Limits) -> list[tuple[str, str]]:
    if not audio.n_samples:
        return [("truncated", "no samples")]
    announced_s = wanted / audio.sample_rate_hz
    claimed_s = announced_s if record.duration_s is None else record.duration_s
    for expected_s in (announced_s, claimed_s):
        if audio.duration_s < expected_s - limits.allowed_s(expected_s):
            return [("truncated", f"{audio.duration_s:.3f} s, expected {expected_s:.3f} s")]
    if audio.duration_s > claimed_s + limits.allowed_s(claimed_s):
        return [("duration_mismatch", f"{audio.duration_s:.3f} s, expected {claimed_s:.3f} s")]
    return [("truncated", "the file is shorter than its format says")] if _ends_early(record.audio) else []


def _ends_early(path: Path) -> bool:
    """Whether a RIFF file is shorter than its header says, or an Ogg stream has not come to its last page's end.

    libsndfile takes such files as they are, as if they ended there.
    """
    with path.open("rb") as file:
        head = file.read(8)
        size = file.seek(0, 2)
        if head[:4] == b"RIFF":
            announced = int.from_bytes(head[4:], "little")
            # 0 and the largest number stand for "unknown" in files that were written to a pipe.
            return announced not in (0, 0xFFFFFFFF) and announced + 8 > size + 1
        if head[:4] == b"OggS":
            file.seek(max(0, size - _OGG_PAGE_BYTES))
            tail = file.read()
            page = tail[max(0, tail.rfind(b"OggS")) :]
            # RFC 3533: flags in byte 5, of which 4 marks the last page; the number of lacing values, which add up to
            # the size of the body, in byte 26.
            header = 27 + (page[26] if len(page) > 26 else 0)
            whole = len(page) >= header and len(page) >= header + sum(page[27:header])
            return not (whole and page[5] & 4)
    return False
