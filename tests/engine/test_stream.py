"""Work lies at fixed places of stream time, however the features arrived."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_service.engine.frames import TICK_FRAMES
from asr_service.engine.interface import FrameEvidence, SpeechBegin, SpeechEnd, StreamHandle, StreamOptions
from asr_service.engine.stream import Stream
from asr_service.engine.voice_activity import BANDS, VoiceActivity
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
        handle,
        options,
        policy,
        outputs.append,
        n_mels=MELS,
        chunk_features=CHUNK,
        lookahead_features=LOOK,
        voice=VoiceActivity(),
    ), outputs


def levels(energies: np.ndarray) -> np.ndarray:
    """(T,) energies, the same in all bands."""
    return np.repeat(energies[:, np.newaxis], BANDS, axis=1)


def feed(stream: Stream, energies: np.ndarray, pieces: list[int]) -> list[tuple[int, bool, bool]]:
    """Give features in pieces, doing all work as it comes up; returns (frames, whole, ends) of each."""
    done = []
    start = 0
    for size in [*pieces, len(energies)]:
        part = energies[start : start + size]
        start += len(part)
        stream.add(np.ones((len(part), MELS), np.float32), levels(part), turn=1)
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
    stream.add(np.ones((100, MELS), np.float32), levels(np.full(100, LOUD, np.float32)), turn=1)
    stream.flush()
    assert drain(stream) == [(64, False, False), (32, False, True)]


def test_voice_activity_is_announced_at_its_stream_time_once_each_way() -> None:
    stream, outputs = make_stream(Mode.ACCURATE, EndAt())
    energies = np.full(400, QUIET, np.float32)
    energies[80:240] = LOUD
    energies[304:312] = LOUD  # a click
    feed(stream, energies, [7] * 50)
    assert outputs == [SpeechBegin(0.8), SpeechEnd(2.4)]


def test_an_utterance_that_is_cut_in_the_middle_of_speech_is_cut_where_it_is_quietest() -> None:
    energies = np.full(400, LOUD, np.float32)
    energies[232:248] = -7.0  # between two words
    energies[300:304] = -14.0  # shorter than a tick: in the middle of a word
    policy = EndAt(3.6)
    work = feed(make_stream(Mode.ACCURATE, policy)[0], with_pause_before(energies), [])
    assert [frames for frames, _, _ in work] == [80 + 240, 160]
    # The policy hears again, as the next utterance's, what came after the cut.
    again = [evidence for evidence in policy.seen if evidence.utterance_start_s == 3.2]
    assert again[0].time_s == pytest.approx(3.28) and again[0].has_words
    assert [evidence.time_s for evidence in again] == sorted(evidence.time_s for evidence in again)


@pytest.mark.parametrize(("silent_ticks", "end"), [(1, 80 + 240), (2, 80 + 280)])
def test_one_tick_of_silence_is_no_end_of_speech_and_two_are(silent_ticks: int, end: int) -> None:
    energies = np.full(400, LOUD, np.float32)
    energies[232:248] = QUIET - 1.0  # between two words
    energies[280 - silent_ticks * TICK_FRAMES : 280] = QUIET
    work = feed(make_stream(Mode.ACCURATE, EndAt(3.6))[0], with_pause_before(energies), [])
    assert work[0] == (end, True, True)


def with_pause_before(energies: np.ndarray) -> np.ndarray:
    """0.8 s of silence first, so that voice activity knows the room."""
    return np.concatenate([np.full(80, QUIET, np.float32), energies])


def test_a_live_utterance_is_cut_no_further_back_than_what_is_not_encoded_yet() -> None:
    energies = np.full(400, LOUD, np.float32)
    energies[40:56] = -9.0
    energies[168:176] = -7.0
    work = feed(make_stream(Mode.STREAMING, EndAt(2.64))[0], with_pause_before(energies), [])
    # 64 + 64 + 64 frames are encoded by 2.64 s, for the next chunk waits for its look-ahead.
    assert [(frames, ends) for frames, _, ends in work][:4] == [(64, False)] * 3 + [(256 - 192, True)]


def test_an_utterance_that_ends_in_silence_or_by_the_clients_wish_ends_there() -> None:
    energies = with_pause_before(np.full(240, LOUD, np.float32))
    energies[240:] = QUIET
    work = feed(make_stream(Mode.ACCURATE, EndAt(2.64))[0], energies, [])
    assert work[0][0] == 264
    stream, _ = make_stream(Mode.ACCURATE, EndAt())
    stream.add(np.ones((300, MELS), np.float32), levels(with_pause_before(np.full(220, LOUD, np.float32))), turn=1)
    stream.flush()
    assert drain(stream) == [(296, True, True)]


def test_the_endpointer_is_told_what_the_decoder_found_and_once_that_it_grew() -> None:
    policy = EndAt()
    stream, _ = make_stream(Mode.STREAMING, policy)
    stream.has_words = stream.new_word = True
    stream.last_word_end_s = 0.4
    stream.add(np.ones((40, MELS), np.float32), levels(np.full(40, QUIET, np.float32)), turn=1)
    assert stream.work() is None
    assert [evidence.new_word for evidence in policy.seen] == [True, False, False, False, False]
    assert all(evidence.has_words and evidence.last_word_end_s == 0.4 for evidence in policy.seen)


@pytest.mark.parametrize("mode", list(Mode))
def test_nothing_of_an_utterance_is_told_of_the_next(mode: Mode) -> None:
    policy = EndAt(1.6)
    stream, _ = make_stream(mode, policy)
    energies = with_pause_before(np.full(240, QUIET, np.float32))
    energies[80:130] = LOUD
    stream.add(np.ones((len(energies), MELS), np.float32), levels(energies), turn=1)
    ended = False
    while not ended:
        work = stream.work()
        assert work is not None
        ended = work.ends_utterance
        stream.take()
    assert stream.speech_heard
    stream.has_words = stream.new_word = stream.shows_words = True
    stream.last_word_end_s = 1.3
    stream.next_utterance()
    assert not (stream.speech_heard or stream.shows_words)
    stream.work()
    later = [evidence for evidence in policy.seen if evidence.utterance_start_s == 1.6]
    assert later and not any(evidence.has_words or evidence.new_word for evidence in later)
    assert {evidence.last_word_end_s for evidence in later} == {None}


def test_every_flush_ends_an_utterance_and_one_that_is_repeated_no_other() -> None:
    stream, _ = make_stream(Mode.ACCURATE, EndAt())
    for frames in (48, 60):
        stream.add(np.ones((frames, MELS), np.float32), levels(np.full(frames, LOUD, np.float32)), turn=1)
        stream.flush()
        stream.flush()
    assert drain(stream) == [(48, True, True), (56, True, True)]
