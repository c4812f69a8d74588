"""Clips of a manifest: aligned once, read from the cache after that, and named where something is wrong with them."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from asr_service.bench.clips import load_clips, needed
from asr_service.config import Settings
from asr_service.errors import InvalidAudio
from asr_service.evaluation.forced_alignment import AlignmentCache, SpokenWord
from asr_service.evaluation.reference import Reference


class Aligner:
    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, waveform, text):
        self.asked.append(text)
        if text == "too long":
            raise InvalidAudio("2 words do not fit")
        return (SpokenWord(text, 0.0, len(waveform) / 16_000),)


def references(tmp_path, *texts):
    made = []
    for number, text in enumerate(texts):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, np.full(1600, (number - 1) / 2), 16_000, subtype="PCM_16")
        made.append(Reference(f"clip-{number}", text, path))
    return made


def test_clips_are_aligned_once(tmp_path):
    rows = references(tmp_path, "a", "b", "c")
    aligner = Aligner()
    clips = load_clips(rows, Settings(), AlignmentCache(tmp_path / "kept", "bundle"), lambda: aligner)
    assert aligner.asked == ["a", "b", "c"]
    assert [clip.words for clip in clips] == [(SpokenWord(text, 0.0, 0.1),) for text in "abc"]
    assert [np.frombuffer(clip.pcm, dtype="<i2")[800] for clip in clips] == pytest.approx([-16384, 0, 16384], abs=1)

    def nobody() -> Aligner:
        raise AssertionError("everything was in the cache")

    assert load_clips(rows, Settings(), AlignmentCache(tmp_path / "kept", "bundle"), nobody) == clips


def test_a_clip_that_cannot_hold_its_words_is_named(tmp_path):
    with pytest.raises(InvalidAudio, match="clip-1: 2 words do not fit"):
        load_clips(
            references(tmp_path, "a", "too long"), Settings(), AlignmentCache(tmp_path, "bundle"), lambda: Aligner()
        )


def test_as_many_clips_are_read_as_the_streams_can_play_and_they_are_spread_over_the_test_set():
    rows = [Reference(str(number), "", duration_s=10.0) for number in range(1000)]
    few = needed(rows, seconds=60.0, streams=2)
    assert 14 <= len(few) < 30
    assert int(few[-1].utterance_id) > 900
    assert needed(rows, seconds=600.0, streams=64) == rows
    assert needed(rows[:1], seconds=60.0, streams=8) == rows[:1]
