"""Work lies at fixed places of stream time, however the features arrived."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from asr_service.engine.interface import FrameEvidence, SpeechBegin, SpeechEnd, StreamHandle, StreamOptions
from asr_service.engine.stream import TICK_FRAMES, Stream
from asr_service.types import Mode

CHUNK, LOOK, MELS = 64, 16, 4
QUIET, LOUD = -14.0, -5.0


class EndAt:
    """A policy that ends utterances at given stream times."""

    def __init__(self, *times_s: float) -> None:
        self.times_s = list(times_s)
        self.seen: list[FrameEvidence] = []

    def observe(self, evidence: FrameEvidence) -> bool:
        self.seen.append(evidence)
        if self.times_s and evidence.time_s >= self.times_s[0] - 1e-9:
            self.times_s.pop(0)
            return True
        return False


def make_stream(mode: Mode, policy: EndAt, slot: int = 0) -> tuple[Stream, list[object]]:
    outputs: list[object] = []
    options = StreamOptions(mode=mode)
    handle = StreamHandle(slot, 0)
    return Stream(
        handle, options, policy, outputs.append, n_mels=MELS, chunk_features=CHUNK, lookahead_features=LOOK
    ), outputs


def feed(stream: Stream, energies: np.ndarray, pieces: list[int]) -> list[tuple[int, bool, bool]]:
    """Give features in pieces, doing all work as it comes up; returns (frames, whole, ends) of each."""
    done = []
    start = 0
    for size in [*pieces, len(energies)]:
        part = energies[start : start + size]
        start += len(part)
        stream.add(np.ones((len(part), MELS), np.float32), part, turn=1)
        done += drain(stream)
    stream.finishing = True
    return done + drain(stream)


def drain(stream: Stream) -> list[tuple[int, bool, bool]]:
    done = []
    while (work := stream.work()) is not None:
        taken = stream.take()
        assert len(taken) == work.frames + work.lookahead
        assert work.lookahead == (0 if work.whole or work.ends_utterance else LOOK)
        done.append((work.frames, work.whole, work.ends_utterance))
        if work.ends_utterance:
            stream.next_utterance()
            if stream.finishing and stream.encoded == stream.available:
                break
    return done


@given(st.lists(st.integers(0, 300), max_size=12), st.integers(0, 700), st.sampled_from(list(Mode)))
def test_work_does_not_depend_on_how_the_audio_arrived(pieces: list[int], frames: int, mode: Mode) -> None:
    energies = np.where(np.arange(frames) % 150 < 90, LOUD, QUIET).astype(np.float32)
    whole = feed(make_stream(mode, EndAt(1.52, 4.0))[0], energies, [])
    assert feed(make_stream(mode, EndAt(1.52, 4.0))[0], energies, pieces) == whole
    assert sum(work[0] for work in whole) == frames


def test_streaming_work_is_full_chunks_cut_at_the_endpoint() -> None:
    stream, _ = make_stream(Mode.STREAMING, EndAt(1.04))
    work = feed(stream, np.full(203, LOUD, np.float32), [])
    assert work == [(64, False, False), (40, False, True), (64, False, False), (35, False, True)]
    assert all(frames % TICK_FRAMES == 0 for frames, _, _ in work[:-1])


def test_accurate_work_is_whole_utterances() -> None:
    stream, _ = make_stream(Mode.ACCURATE, EndAt(1.04))
    assert feed(stream, np.full(203, LOUD, np.float32), []) == [(104, True, True), (99, True, True)]


def test_flush_ends_the_utterance_at_the_audio_before_it() -> None:
    stream, _ = make_stream(Mode.STREAMING, EndAt())
    stream.add(np.ones((100, MELS), np.float32), np.full(100, LOUD, np.float32), turn=1)
    stream.flush()
    assert drain(stream) == [(64, False, False), (32, False, True)]


def test_voice_activity_is_announced_at_its_stream_time_once_each_way() -> None:
    stream, outputs = make_stream(Mode.ACCURATE, EndAt())
    energies = np.full(400, QUIET, np.float32)
    energies[80:240] = LOUD
    energies[304:312] = LOUD  # a click
    feed(stream, energies, [7] * 50)
    assert outputs == [SpeechBegin(0.8), SpeechEnd(2.4)]
