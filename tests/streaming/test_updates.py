"""Updates: stability is a promise, times never go backwards, only interims are ever dropped."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_service.engine.interface import Final, Partial, SpeechBegin, SpeechEnd
from asr_service.streaming.outbox import Outbox
from asr_service.streaming.updates import STABLE, UNSTABLE, StreamUpdate, UpdateBuilder
from asr_service.types import Hypothesis, RecognitionConfig, SpeechEventKind, Word


def words(text: str, start_s: float = 0.0, each_s: float = 0.5) -> tuple[Word, ...]:
    return tuple(
        Word(word, start_s + index * each_s, start_s + (index + 1) * each_s, 0.9)
        for index, word in enumerate(text.split())
    )


def partial(text: str, stable: int, index: int = 0, start_s: float = 0.0, end_s: float = 3.0) -> Partial:
    return Partial(Hypothesis(words(text, start_s)), stable, index, start_s, end_s)


def final(text: str, index: int = 0, start_s: float = 0.0, end_s: float = 3.0) -> Final:
    return Final((Hypothesis(words(text, start_s)),), index, start_s, end_s)


def builder(**options: object) -> UpdateBuilder:
    return UpdateBuilder(RecognitionConfig(**options))  # type: ignore[arg-type]


def texts(update: StreamUpdate) -> list[tuple[str, float]]:
    return [(result.alternatives[0].text, result.stability) for result in update.results]


@pytest.mark.parametrize(
    ("stable", "expected"),
    [
        (0, [("a b c", UNSTABLE)]),
        (2, [("a b", STABLE), ("c", UNSTABLE)]),
        (3, [("a b c", STABLE)]),
    ],
)
def test_interim_has_a_stable_part_and_a_tail_where_they_have_words(
    stable: int, expected: list[tuple[str, float]]
) -> None:
    assert texts(builder().interim(partial("a b c", stable), 3.0)) == expected


def test_interim_without_words_takes_back_what_was_shown() -> None:
    assert texts(builder().interim(partial("", 0), 3.0)) == [("", UNSTABLE)]


def test_stable_is_still_at_least_nine_tenths_on_the_wire() -> None:
    (received,) = struct.unpack("f", struct.pack("f", STABLE))
    assert 0.9 <= received <= 1.0


def test_the_stable_part_ends_with_its_last_word_where_the_tail_begins() -> None:
    stable, tail = builder().interim(partial("a b c", 2), 3.0).results
    assert [(part.start_s, part.end_s) for part in (stable, tail)] == [(0.0, 1.0), (1.0, 3.0)]


def test_every_update_says_how_much_audio_had_been_received() -> None:
    made = builder()
    updates = (
        made.interim(partial("a", 0), 3.0),
        made.voice_activity(SpeechBegin(1.0), 4.0),
        made.final(final("a"), 5.0),
        made.voice_activity(SpeechEnd(3.0), 6.0),
    )
    assert [update.audio_received_s for update in updates] == [3.0, 4.0, 5.0, 6.0]
    assert [update.event.kind for update in updates if update.event] == [
        SpeechEventKind.SPEECH_ACTIVITY_BEGIN,
        SpeechEventKind.SPEECH_ACTIVITY_END,
    ]


def test_final_carries_no_more_alternatives_than_were_asked_for() -> None:
    output = Final(tuple(Hypothesis(words(text)) for text in ("a b", "a", "b")), 0, 0.0, 1.0)
    for asked, expected in ((0, 1), (1, 1), (2, 2), (30, 3)):
        assert len(builder(max_alternatives=asked).final(output, 1.0).results[0].alternatives) == expected


def test_events_never_go_backwards() -> None:
    made = builder()
    first = made.event(SpeechEventKind.SPEECH_ACTIVITY_END, 2.0, 2.0)
    second = made.event(SpeechEventKind.SPEECH_ACTIVITY_BEGIN, 1.5, 2.0)
    assert first.event is not None and second.event is not None
    assert second.event.time_s == first.event.time_s == 2.0


def test_no_event_lies_behind_the_audio_that_was_received() -> None:
    told = builder().event(SpeechEventKind.SPEECH_ACTIVITY_END, 2.08, 2.0)
    assert told.event is not None and told.event.time_s == 2.0


outputs = st.lists(
    st.tuples(
        st.booleans(),
        st.floats(0, 100),
        st.floats(0, 100),
        st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=1, max_size=4),
        st.integers(0, 4),
    ),
    max_size=12,
)


@given(outputs)
def test_whatever_the_engine_says_times_never_go_backwards(
    outputs: list[tuple[bool, float, float, list[tuple[float, float]], int]],
) -> None:
    made = builder()
    last_end_s = final_end_s = received_s = 0.0
    for is_final, start_s, end_s, spans, stable in outputs:
        received_s += 20.0
        hypothesis = Hypothesis(tuple(Word("w", *span, 0.5) for span in spans))
        if is_final:
            update = made.final(Final((hypothesis,), 0, start_s, end_s), received_s)
            result = update.results[0]
            assert result.start_s >= final_end_s
            final_end_s = result.end_s
        else:
            update = made.interim(Partial(hypothesis, min(stable, len(spans)), 0, start_s, end_s), received_s)
        assert last_end_s <= update.results[-1].end_s <= received_s
        last_end_s = update.results[-1].end_s
        for result in update.results:
            assert result.start_s <= result.end_s
            edges = [edge for word in result.alternatives[0].words for edge in (word.start_s, word.end_s)]
            assert edges == sorted(edges)
            assert edges[0] >= result.start_s or not is_final
            assert edges[-1] <= update.results[-1].end_s


def test_newer_interim_takes_the_place_of_the_older_one() -> None:
    made, outbox = builder(), Outbox(8)
    for text in ("a", "a b", "a b c"):
        outbox.put(made.interim(partial(text, 0), 1.0))
    assert len(outbox) == 1
    taken = outbox.take()
    assert taken is not None and texts(taken) == [("a b c", UNSTABLE)]


def test_final_drops_the_interims_of_its_utterance_and_only_those() -> None:
    made, outbox = builder(), Outbox(8)
    outbox.put(made.interim(partial("a", 0), 1.0))
    outbox.put(made.final(final("a b"), 1.0))
    outbox.put(made.interim(partial("c", 0, index=1, start_s=3.0), 1.0))
    outbox.put(made.event(SpeechEventKind.SPEECH_ACTIVITY_END, 4.0, 1.0))
    kinds = []
    while (update := outbox.take()) is not None:
        kinds.append("event" if update.event else "interim" if update.interim_of is not None else "final")
    assert kinds == ["final", "interim", "event"]


steps = st.lists(st.sampled_from(["interim", "final", "event", "take"]), max_size=60)


@given(steps)
def test_finals_and_events_are_never_dropped_and_interims_never_pile_up(steps: list[str]) -> None:
    made, outbox = builder(), Outbox(4)
    expected, got, index = [], [], 0
    for number, step in enumerate([*steps, *["take"] * len(steps)]):
        if step == "interim":
            outbox.put(made.interim(partial("a", 0, index=index, start_s=float(index)), 1.0))
        elif step == "final":
            expected.append(index)
            outbox.put(made.final(final("a", index=index, start_s=float(index)), 1.0))
            index += 1
        elif step == "event":
            expected.append(-number)
            outbox.put(made.event(SpeechEventKind.SPEECH_ACTIVITY_END, float(number), -float(number)))
        elif (update := outbox.take()) is not None and update.interim_of is None:
            got.append(int(update.audio_received_s) if update.event else update.results[0].utterance_index)
        assert len(outbox) - (len(expected) - len(got)) in (0, 1)
    assert got == expected
