"""Rules of the endpointer, one by one and as properties over arbitrary evidence."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_service.config import EndpointingSettings
from asr_service.engine.interface import FrameEvidence, UtterancePolicy
from asr_service.streaming.endpointer import RINGING_SHARE, Endpointer
from asr_service.types import EndpointingConfig, Mode

PERIOD_S = 0.08

# One stretch of audio: (somebody speaks, a word ends here).
Stretches = list[tuple[bool, bool]]
stretches = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=300)
configs = st.builds(
    EndpointingConfig,
    min_trailing_silence_s=st.floats(0.1, 10),
    max_utterance_s=st.floats(1, 30),
)
SPEECH, SILENCE, QUIET_WORD = (True, True), (False, False), (False, True)


@dataclasses.dataclass(frozen=True)
class Ending:
    """`silence_s`: since the last word, and the last speech of two ticks or more; `wordless_s`: since the last word."""

    start_s: float
    end_s: float
    was_active: bool
    silence_s: float
    wordless_s: float


def endings(policy: UtterancePolicy, audio: Stretches) -> list[Ending]:
    """Drive a policy as the engine does; return where utterances ended."""
    found: list[Ending] = []
    start_s, last_active_s, word_s, was_active, was_speech = 0.0, 0.0, None, False, False
    for index, (is_speech, is_word) in enumerate(audio, start=1):
        time_s = index * PERIOD_S
        word_s = time_s if is_word else word_s
        if (is_speech and was_speech) or is_word:
            last_active_s, was_active = time_s, True
        was_speech = is_speech
        if policy.observe(FrameEvidence(time_s, is_speech, word_s is not None, is_word, start_s, word_s)):
            wordless_s = 0.0 if word_s is None else time_s - word_s
            found.append(Ending(start_s, time_s, was_active, time_s - last_active_s, wordless_s))
            start_s, last_active_s, word_s, was_active, was_speech = time_s, time_s, None, False, False
    return found


def seconds(duration_s: float, stretch: tuple[bool, bool]) -> Stretches:
    return [stretch] * round(duration_s / PERIOD_S)


def test_utterance_ends_after_trailing_silence() -> None:
    policy = Endpointer(EndpointingConfig(min_trailing_silence_s=0.8))
    found = endings(policy, seconds(2.0, SPEECH) + seconds(2.0, SILENCE))
    assert [ending.end_s for ending in found] == [pytest.approx(2.0 + 0.8)]


def test_pause_shorter_than_the_trailing_silence_does_not_end_it() -> None:
    policy = Endpointer(EndpointingConfig(min_trailing_silence_s=0.8))
    assert not endings(policy, (seconds(1.0, SPEECH) + seconds(0.72, SILENCE)) * 5)


def test_word_that_ends_after_the_speech_restarts_the_silence() -> None:
    policy = Endpointer(EndpointingConfig(min_trailing_silence_s=0.8))
    audio = seconds(1.6, SPEECH) + seconds(0.4, SILENCE) + [QUIET_WORD] + seconds(2.0, SILENCE)
    assert [ending.end_s for ending in endings(policy, audio)] == [pytest.approx(2.08 + 0.8)]


def test_speech_without_words_is_not_silence() -> None:
    policy = Endpointer(EndpointingConfig(min_trailing_silence_s=0.8), settings=EndpointingSettings(wordless_s=3.0))
    assert not endings(policy, seconds(1.0, SPEECH) + seconds(2.8, (True, False)))


def test_silence_without_words_ends_after_the_longer_time() -> None:
    policy = Endpointer(EndpointingConfig(), settings=EndpointingSettings(empty_silence_s=4.0))
    found = endings(policy, seconds(12.0, SILENCE))
    assert [ending.end_s for ending in found] == pytest.approx([4.0, 8.0, 12.0])


def test_long_speech_is_cut_at_the_maximum() -> None:
    policy = Endpointer(EndpointingConfig(max_utterance_s=8.0))
    found = endings(policy, seconds(20.0, SPEECH))
    assert [ending.end_s for ending in found] == pytest.approx([8.0, 16.0])


def test_rounding_of_stream_times_moves_no_endpoint_by_a_frame() -> None:
    ends = [pytest.approx(1.2 * number) for number in range(1, 41)]
    cut = endings(Endpointer(EndpointingConfig(max_utterance_s=1.2)), seconds(48.0, SPEECH))
    assert [ending.end_s for ending in cut] == ends
    settings = EndpointingSettings(long_utterance_share=0.5, long_utterance_silence_s=0.24)
    pauses = (seconds(0.96, SPEECH) + seconds(0.24, SILENCE)) * 40
    paused = endings(Endpointer(EndpointingConfig(max_utterance_s=2.4), settings=settings), pauses)
    assert [ending.end_s for ending in paused] == ends


def test_short_pause_ends_a_long_utterance_before_the_maximum_does() -> None:
    settings = EndpointingSettings(long_utterance_share=0.7, long_utterance_silence_s=0.24)
    audio = seconds(7.2, SPEECH) + seconds(0.24, SILENCE) + seconds(4.0, SPEECH)
    policy = Endpointer(EndpointingConfig(max_utterance_s=10.0), settings=settings)
    assert [ending.end_s for ending in endings(policy, audio)] == [pytest.approx(7.44)]


def test_a_long_utterance_needs_no_more_silence_than_was_asked_for() -> None:
    settings = EndpointingSettings(long_utterance_share=0.7, long_utterance_silence_s=2.0)
    audio = seconds(7.2, SPEECH) + seconds(2.0, SILENCE)
    policy = Endpointer(EndpointingConfig(min_trailing_silence_s=0.8, max_utterance_s=10.0), settings=settings)
    assert endings(policy, audio)[0].end_s == pytest.approx(8.0)


def test_speech_in_which_no_word_is_known_ends_as_soon_as_words_do() -> None:
    """A short answer may be found by the final pass alone: it must not wait for what is said next."""
    policy = Endpointer(EndpointingConfig(min_trailing_silence_s=0.8))
    audio = seconds(0.8, SILENCE) + seconds(0.4, (True, False)) + seconds(2.0, SILENCE)
    assert [ending.end_s for ending in endings(policy, audio)] == [pytest.approx(0.8 + 0.4 + 0.8)]


def test_speech_of_one_tick_in_silence_does_not_begin_it_anew() -> None:
    policy = Endpointer(EndpointingConfig(min_trailing_silence_s=0.8))
    click = seconds(1.6, SPEECH) + seconds(0.4, SILENCE) + [(True, False)] + seconds(2.0, SILENCE)
    assert [ending.end_s for ending in endings(policy, click)] == [pytest.approx(1.6 + 0.8)]


def test_speech_of_one_tick_with_two_silent_ones_before_it_does_not_begin_the_silence_anew() -> None:
    policy = Endpointer(EndpointingConfig(min_trailing_silence_s=0.8))
    clicks = seconds(0.8, SPEECH) + [SILENCE, SILENCE, (True, False)] * 10
    assert endings(policy, clicks)[0].end_s == pytest.approx(0.8 + 0.8)


def test_speech_of_two_ticks_in_silence_begins_it_anew() -> None:
    policy = Endpointer(EndpointingConfig(min_trailing_silence_s=0.8))
    audio = seconds(1.6, SPEECH) + seconds(0.4, SILENCE) + [(True, False)] * 2 + seconds(2.0, SILENCE)
    assert [ending.end_s for ending in endings(policy, audio)] == [pytest.approx(1.6 + 0.4 + 0.16 + 0.8)]


def test_quiet_speech_that_is_heard_in_every_other_tick_is_no_silence() -> None:
    policy = Endpointer(EndpointingConfig(min_trailing_silence_s=0.8))
    assert not endings(policy, seconds(0.8, SPEECH) + [(False, False), (True, False)] * 16)


def test_first_speech_of_an_utterance_that_was_heard_without_decoding_counts_though_it_is_of_one_tick() -> None:
    policy = Endpointer(EndpointingConfig(min_trailing_silence_s=0.8))
    ends = []
    for tick in range(1, 80):
        is_speech = tick == 40
        if policy.observe(FrameEvidence(tick * PERIOD_S, is_speech, tick >= 40, False, 0.0)):
            ends.append(tick)
            break
    assert ends == [40 + 10]


def test_no_silence_ends_an_utterance_where_speech_may_just_be_beginning() -> None:
    policy = Endpointer(EndpointingConfig(min_trailing_silence_s=0.8))
    audio = seconds(1.6, SPEECH) + seconds(0.72, SILENCE)
    assert not endings(policy, audio + seconds(0.8, (True, False)))


@pytest.mark.parametrize("phase", range(40))
def test_default_silence_leaves_half_of_0_3_s_after_0_8_s_of_silence_to_the_final_pass(phase: int) -> None:
    """Wherever speech ends among the ticks and messages of 0.1 s."""
    spoken_s, message_s = 1.6 + phase * 0.01, 0.1
    policy = Endpointer(EndpointingSettings().default(Mode.STREAMING))
    times_s = (tick * PERIOD_S for tick in range(1, 80))
    end_s = next(
        time_s
        for time_s in times_s
        if policy.observe(FrameEvidence(time_s, time_s - PERIOD_S < spoken_s - 1e-6, True, False, 0.0))
    )
    sent_s = math.ceil(end_s / message_s - 1e-6) * message_s
    assert 0.7 < sent_s - spoken_s <= 0.8 + 0.15 + 1e-6


def test_a_stream_that_says_nothing_of_endpoints_gets_the_default_of_the_settings() -> None:
    assert EndpointingConfig() == EndpointingSettings().default(Mode.STREAMING)
    assert EndpointingConfig(min_trailing_silence_s=1.0) == EndpointingSettings().default(Mode.ACCURATE)


def evidence(time_s: float, *, speech: bool = False, word_end_s: float | None, new: bool = False) -> FrameEvidence:
    return FrameEvidence(time_s, speech, word_end_s is not None, new, 0.0, word_end_s)


def test_silence_after_a_word_counts_from_its_end_not_from_when_it_was_found() -> None:
    policy = Endpointer(EndpointingConfig(min_trailing_silence_s=0.8))
    ends = []
    for tick in range(1, 60):
        time_s = tick * PERIOD_S
        # A word that ends at 1.6 s is decoded at 2.16 s.
        word_end_s = 1.6 if time_s >= 2.16 - 1e-9 else 0.9 if time_s >= 1.0 else None
        if policy.observe(evidence(time_s, speech=time_s < 1.5, word_end_s=word_end_s, new=tick == 27)):
            ends.append(time_s)
            break
    assert ends == [pytest.approx(1.6 + 0.8)]


def end_after(spoken_s: float, word_end_s: float, config: EndpointingConfig) -> float:
    """Where an utterance ends whose last word and whose speech end here."""
    policy = Endpointer(config)
    times_s = [tick * PERIOD_S for tick in range(1, 200)]
    return next(
        time_s
        for time_s in times_s
        if policy.observe(evidence(time_s, speech=time_s <= spoken_s + 1e-6, word_end_s=word_end_s))
    )


def test_what_is_heard_right_behind_a_word_is_its_ringing() -> None:
    config = EndpointingConfig(min_trailing_silence_s=0.8)
    assert end_after(1.6 + 0.24, 1.6, config) == pytest.approx(1.6 + 0.8)
    assert end_after(1.6 + 0.32, 1.6, config) == pytest.approx(1.6 + 0.32 + 0.8)


@given(st.integers(10, 30), st.integers(0, 8), configs, configs)
def test_most_of_the_silence_lies_behind_the_speech_whatever_is_known_of_words(
    word: int, ringing: int, one: EndpointingConfig, two: EndpointingConfig
) -> None:
    spoken_s, word_s = (word + ringing) * PERIOD_S, word * PERIOD_S
    short, long = sorted((one, two), key=lambda config: config.min_trailing_silence_s)
    wanted_s = min(short.min_trailing_silence_s, 3.0)  # `wordless_s`
    short, long = (dataclasses.replace(config, max_utterance_s=30.0) for config in (short, long))
    end_s = end_after(spoken_s, word_s, short)
    assert end_s >= spoken_s + 0.7 * wanted_s - 1e-5
    assert end_s >= word_s + wanted_s - 1e-5
    assert end_s <= end_after(spoken_s, word_s, long) + 1e-5


def test_quiet_word_that_voice_activity_missed_keeps_the_utterance_together_once_it_is_decoded() -> None:
    policy = Endpointer(EndpointingConfig(min_trailing_silence_s=0.8))
    assert not policy.observe(evidence(1.0, speech=True, word_end_s=1.0))
    assert not policy.observe(evidence(1.72, word_end_s=1.0))
    assert not policy.observe(evidence(1.8, word_end_s=1.4))
    assert policy.observe(evidence(2.24, word_end_s=1.4))


def test_background_voices_without_words_end_an_utterance_after_a_longer_time() -> None:
    policy = Endpointer(EndpointingConfig(), settings=EndpointingSettings(wordless_s=3.0))
    ends = [
        tick * PERIOD_S
        for tick in range(1, 80)
        if policy.observe(evidence(tick * PERIOD_S, speech=True, word_end_s=1.0))
    ]
    assert ends[0] == pytest.approx(4.0)


def test_wordless_voices_end_nothing_while_a_longer_silence_is_asked_for() -> None:
    policy = Endpointer(EndpointingConfig(min_trailing_silence_s=5.0), settings=EndpointingSettings(wordless_s=3.0))
    ends = [
        tick * PERIOD_S
        for tick in range(1, 80)
        if policy.observe(evidence(tick * PERIOD_S, speech=True, word_end_s=1.0))
    ]
    assert ends[0] == pytest.approx(6.0)


def test_an_utterance_that_has_no_word_yet_is_left_to_silence_and_the_maximum() -> None:
    policy = Endpointer(EndpointingConfig(max_utterance_s=10.0), settings=EndpointingSettings(wordless_s=3.0))
    found = endings(policy, seconds(20.0, (True, False)))
    assert [ending.end_s for ending in found] == pytest.approx([10.0, 20.0])


@pytest.mark.parametrize("ends_in_speech", [True, False])
def test_an_utterance_after_a_flush_is_decided_as_if_it_were_the_first(ends_in_speech: bool) -> None:
    """The engine ends an utterance at a flush; only the next evidence tells the policy that another has begun."""
    settings = EndpointingSettings(empty_silence_s=4.0)
    policy = Endpointer(EndpointingConfig(min_trailing_silence_s=0.8), settings=settings)
    flush_s = 25 * PERIOD_S
    for tick in range(1, 26):
        is_speech = tick < 25 or ends_in_speech
        assert not policy.observe(FrameEvidence(tick * PERIOD_S, is_speech, True, False, 0.0, 1.6))
    click = FrameEvidence(flush_s + PERIOD_S, True, False, False, flush_s)
    assert not policy.observe(click)
    times_s = (flush_s + tick * PERIOD_S for tick in range(2, 100))
    end_s = next(time_s for time_s in times_s if policy.observe(FrameEvidence(time_s, False, False, False, flush_s)))
    assert end_s == pytest.approx(flush_s + 4.0)


@given(configs, stretches)
def test_no_utterance_is_longer_than_the_maximum(config: EndpointingConfig, audio: Stretches) -> None:
    found = endings(Endpointer(config), audio)
    starts = [0.0] + [ending.end_s for ending in found]
    for start_s, end_s in zip(starts, [*starts[1:], len(audio) * PERIOD_S], strict=True):
        assert end_s - start_s < config.max_utterance_s + PERIOD_S


@given(configs, stretches)
def test_only_silence_the_maximum_or_speech_without_words_ends_an_utterance(
    config: EndpointingConfig, audio: Stretches
) -> None:
    settings = EndpointingSettings()
    for ending in endings(Endpointer(config, settings=settings), audio):
        at_maximum = ending.end_s - ending.start_s >= config.max_utterance_s - 1e-5
        is_wordless = ending.wordless_s >= max(settings.wordless_s, config.min_trailing_silence_s) - 1e-5
        shortest = (1 - RINGING_SHARE) * min(config.min_trailing_silence_s, settings.long_utterance_silence_s)
        needed_s = shortest if ending.was_active else settings.empty_silence_s
        assert at_maximum or is_wordless or ending.silence_s >= needed_s - 1e-5


@given(configs, stretches)
def test_each_utterance_is_decided_as_if_it_were_the_first(config: EndpointingConfig, audio: Stretches) -> None:
    found = endings(Endpointer(config), audio)
    if not found:
        return
    rest = audio[round(found[0].end_s / PERIOD_S) :]
    later = endings(Endpointer(config), rest)
    expected = [pytest.approx(ending.end_s + found[0].end_s) for ending in later]
    assert [ending.end_s for ending in found[1:]] == expected


@given(stretches, st.floats(0.1, 5), st.floats(0.1, 5))
def test_asking_for_less_silence_never_ends_the_first_utterance_later(audio: Stretches, one: float, two: float) -> None:
    short, long = sorted((one, two))
    early = endings(Endpointer(EndpointingConfig(min_trailing_silence_s=short)), audio)
    late = endings(Endpointer(EndpointingConfig(min_trailing_silence_s=long)), audio)
    if late:
        assert early[0].end_s <= late[0].end_s
