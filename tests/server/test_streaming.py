"""What the API reference promises of a stream, over a real socket."""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Iterator

import grpc
import pytest

from asr_service.generated.asr.v1 import speech_pb2 as pb
from tests.fake_engine import FakeEngine, linear16, say, silence
from tests.server.conftest import Service, Start, refusal, until_error
from tests.server.messages import FLUSH, KEEP_ALIVE, audio, chunks, config, events, finals, paced, transcript

SPEECH = linear16(say(0.5, 1, 2, 3, 1.0, 4, 5, 1.0, 6))
TRANSCRIPT = "one two three four five six"


def test_finals_concatenated_are_the_transcript(service: Service) -> None:
    responses = list(service.stream([config(), *chunks(SPEECH)]))
    assert finals(responses) == ["one two three", " four five", " six"]
    assert transcript(responses) == TRANSCRIPT


def test_without_interim_results_only_finals_come(service: Service) -> None:
    responses = list(service.stream([config(), *paced(SPEECH, service.engine)]))
    assert all(result.is_final for response in responses for result in response.results)
    assert all(response.results for response in responses)


@pytest.mark.parametrize("mode", ["STREAMING", "ACCURATE"])
def test_any_split_of_the_bytes_gives_the_same_finals(service: Service, mode: str) -> None:
    first = config({"mode": mode})
    whole = list(service.stream([first, audio(SPEECH)]))
    assert transcript(whole) == TRANSCRIPT
    random_sizes = random.Random(7)
    for sizes in ([640], [1, 2, 3, 5, 7, 4_001], [9_999], [random_sizes.randint(0, 3_000) for _ in range(50)]):
        messages, start, number = [first], 0, 0
        while start < len(SPEECH):
            size = sizes[number % len(sizes)]
            messages.append(audio(SPEECH[start : start + size]))
            start, number = start + size, number + 1
        assert finals(service.stream(messages)) == finals(whole), sizes


def test_single_bytes_give_the_same_transcript(service: Service) -> None:
    data = linear16(say(2, rate_hz=8_000))
    assert transcript(service.stream([config({"sample_rate_hertz": 8_000}), *chunks(data, 1)])) == "two"


@pytest.mark.slow
@pytest.mark.timeout(900)  # 320,000 messages are two minutes of an idle machine
def test_ten_seconds_in_single_bytes_give_the_same_transcript(service: Service) -> None:
    data = linear16(say(0.5, 1, 2, 3, 1.0, 4, 5, 2.0, 6, 7, 3.66))
    single = service.stream([config(), *chunks(data, 1)], timeout=840.0)
    assert finals(single) == finals(service.stream([config(), audio(data)]))


def test_odd_byte_at_the_end_is_dropped(service: Service) -> None:
    assert transcript(service.stream([config(), *chunks(SPEECH + b"\x7f", 333)])) == TRANSCRIPT


def in_step(service: Service, first: pb.StreamingRecognizeRequest, data: bytes) -> list[pb.StreamingRecognizeResponse]:
    """Responses to a client that reads all there are before it sends more, so that none replaces an unread one."""
    engine, requests = service.engine, queue.SimpleQueue()
    call = service.stream(iter(requests.get, None))
    handled, told = engine.handled_samples, engine.told_results
    responses: list[pb.StreamingRecognizeResponse] = []
    requests.put(first)
    for message in chunks(data, 2560):
        requests.put(message)
        handled += len(message.audio) // 2
        while engine.handled_samples < handled:
            time.sleep(0.001)
        while len(responses) < engine.told_results - told:
            responses.append(next(call))
    requests.put(None)
    return [*responses, *call]


def test_interims_grow_into_their_final_and_stable_text_never_changes(service: Service) -> None:
    responses = in_step(service, config(interim_results=True), SPEECH)
    interims = stable_seen = 0
    stable, final_index = "", -1
    for response in responses:
        assert len(response.results) in (1, 2)
        text = "".join(result.alternatives[0].transcript for result in response.results)
        assert text.startswith(stable)
        for result in response.results:
            assert result.utterance_index == final_index + 1
            assert len(result.alternatives) == 1
            assert (result.stability > 0) == (not result.is_final)
            if result.is_final:
                stable, final_index = "", final_index + 1
            else:
                interims += 1
                assert 0 < result.stability <= 1
                if result.stability >= 0.9:
                    stable, stable_seen = result.alternatives[0].transcript, stable_seen + 1
    assert (final_index, interims > 6, stable_seen > 2) == (2, True, True)


def test_times_are_in_stream_time_and_never_go_backwards(service: Service) -> None:
    words = {"enable_word_time_offsets": True}
    first = config(words, interim_results=True, enable_voice_activity_events=True)
    responses = list(service.stream([first, *paced(SPEECH, service.engine)]))
    last_s = event_s = received_s = final_s = 0
    for response in responses:
        received_s, before = response.audio_received.ToMilliseconds(), received_s
        assert received_s >= before
        if response.HasField("speech_event"):
            time_s = response.speech_event.time.ToMilliseconds()
            assert event_s <= time_s <= received_s
            event_s = time_s
            continue
        start_s = response.results[0].result_start_time.ToMilliseconds()
        end_s = response.results[-1].result_end_time.ToMilliseconds()
        assert final_s <= start_s <= end_s
        assert last_s <= end_s <= received_s
        last_s = end_s
        if response.results[0].is_final:
            final_s = end_s
            spoken = response.results[0].alternatives[0].words
            edges = [edge.ToMilliseconds() for word in spoken for edge in (word.start_time, word.end_time)]
            assert edges == sorted(edges) and start_s <= edges[0] and edges[-1] <= end_s
    first_final = next(r for r in responses if r.results and r.results[0].is_final).results[0]
    assert first_final.alternatives[0].words[0].start_time.ToMilliseconds() == pytest.approx(500, abs=80)


def test_half_close_flushes_the_rest_and_ends_with_ok(service: Service) -> None:
    call = service.stream([config(), audio(linear16(say(7, 8)))])
    assert transcript(call) == "seven eight"
    assert call.code() is grpc.StatusCode.OK


def test_silence_gives_no_results_and_ok(service: Service) -> None:
    call = service.stream([config(interim_results=True), *chunks(linear16(silence(12.0)))])
    assert list(call) == []
    assert call.code() is grpc.StatusCode.OK


def test_no_audio_at_all_gives_no_results_and_ok(service: Service) -> None:
    for first in (config(), config({"encoding": "ENCODING_UNSPECIFIED", "sample_rate_hertz": 0})):
        call = service.stream([first])
        assert list(call) == []
        assert call.code() is grpc.StatusCode.OK


@pytest.mark.parametrize("samples", [0, 1, 10, 100])
def test_a_few_samples_are_enough_to_end_well(service: Service, samples: int) -> None:
    assert list(service.stream([config(), audio(bytes(2 * samples))])) == []


def test_single_utterance_ends_after_one_final(service: Service) -> None:
    call = service.stream([config(single_utterance=True, interim_results=True), *chunks(SPEECH)])
    responses = list(call)
    assert call.code() is grpc.StatusCode.OK
    assert finals(responses) == ["one two three"]
    assert [name for name, _ in events(responses)] == ["END_OF_SINGLE_UTTERANCE"]
    assert responses[-2].HasField("speech_event") and responses[-1].results[0].is_final


def test_single_utterance_ends_though_the_client_goes_on_sending(service: Service) -> None:
    def endless() -> Iterator[pb.StreamingRecognizeRequest]:
        yield config(single_utterance=True)
        yield from chunks(SPEECH)
        while True:
            time.sleep(0.01)
            yield audio(bytes(640))

    assert finals(service.stream(endless())) == ["one two three"]


def test_voice_activity_events_come_where_asked_for(service: Service) -> None:
    data = linear16(say(0.48, 1, 2, 1.6, 3, 0.8))
    told = events(service.stream([config(enable_voice_activity_events=True), *chunks(data)]))
    expected = [
        ("SPEECH_ACTIVITY_BEGIN", 0.48),
        ("SPEECH_ACTIVITY_END", 1.12),
        ("SPEECH_ACTIVITY_BEGIN", 2.72),
        ("SPEECH_ACTIVITY_END", 3.04),
    ]
    assert told == [(name, pytest.approx(time_s, abs=0.09)) for name, time_s in expected]
    assert events(service.stream([config(), *chunks(data)])) == []


def seconds(value: float) -> dict[str, int]:
    return {"seconds": int(value), "nanos": round(value % 1 * 1e9)}


@pytest.mark.parametrize("size", [640, 1 << 19])
def test_speech_start_timeout_ends_the_stream(service: Service, size: int) -> None:
    timeout = {"speech_start_timeout": seconds(2.0)}
    call = service.stream([config(voice_activity_timeout=timeout), *chunks(linear16(say(4.0, 1, 1.0)), size)])
    responses = list(call)
    assert events(responses) == [("SPEECH_ACTIVITY_TIMEOUT", pytest.approx(2.0, abs=0.09))]
    assert finals(responses) == []
    assert call.code() is grpc.StatusCode.OK


@pytest.mark.parametrize("size", [640, 1 << 19])
def test_speech_end_timeout_ends_the_stream_after_what_was_said(service: Service, size: int) -> None:
    timeout = {"speech_end_timeout": seconds(2.0)}
    first = config(voice_activity_timeout=timeout, endpointing={"min_trailing_silence": seconds(5.0)})
    call = service.stream([first, *chunks(linear16(say(1, 2, 3.0, 3, 1.0)), size)])
    responses = list(call)
    assert events(responses) == [("SPEECH_ACTIVITY_TIMEOUT", pytest.approx(2.64, abs=0.09))]
    assert finals(responses) == ["one two"]
    assert call.code() is grpc.StatusCode.OK


def test_endpointing_is_the_clients_choice(service: Service) -> None:
    data = chunks(linear16(say(1, 0.8, 2, 2.4, 3)))
    short = config(endpointing={"min_trailing_silence": seconds(0.5)})
    long = config(endpointing={"min_trailing_silence": seconds(2.0)})
    longest = config(endpointing={"min_trailing_silence": seconds(5.0)})
    assert finals(service.stream([short, *data])) == ["one", " two", " three"]
    assert finals(service.stream([long, *data])) == ["one two", " three"]
    assert finals(service.stream([longest, *data])) == ["one two three"]
    cut = config(endpointing={"max_utterance": seconds(1.0)})
    assert finals(service.stream([cut, audio(linear16(say(1, 2, 3, 4, 5, 6)))])) == ["one two three", " four five six"]


def test_flush_ends_the_utterance_and_the_stream_goes_on(service: Service) -> None:
    one, two = linear16(say(1, 2)), linear16(say(3))
    assert finals(service.stream([config(), audio(one), FLUSH, audio(two), FLUSH, FLUSH])) == ["one two", " three"]


def test_alternatives_words_and_confidences_come_where_asked_for(service: Service) -> None:
    data = audio(linear16(say(1, 2, 3)))
    (plain,) = next(service.stream([config(), data])).results
    assert len(plain.alternatives) == 1 and not plain.alternatives[0].words
    (three,) = next(service.stream([config({"max_alternatives": 30}), data])).results
    assert three.alternatives[0].transcript == "one two three"
    assert len(three.alternatives) == 3  # as many as there are
    (timed,) = next(service.stream([config({"enable_word_time_offsets": True}), data])).results
    word = timed.alternatives[0].words[1]
    assert (word.word, word.start_time.ToMilliseconds(), word.confidence) == ("two", 320, 0.0)
    (sure,) = next(service.stream([config({"enable_word_confidence": True}), data])).results
    word = sure.alternatives[0].words[1]
    assert word.confidence == pytest.approx(0.9) and not word.HasField("start_time")


def test_audio_faster_than_real_time_is_held_back_by_the_bound(start: Start) -> None:
    service = start(FakeEngine(pace=0.002), max_buffered_s=4.0)
    long = linear16(say(*[1, 1.0] * 100))
    assert len(finals(service.stream([config(), *chunks(long, 32_000)]))) == 100
    assert service.engine.most_queued_s <= 4.0


def test_idle_stream_ends_though_bytes_trickle(start: Start) -> None:
    service = start(idle_timeout_s=0.5)

    def trickle() -> Iterator[pb.StreamingRecognizeRequest]:
        yield config()
        yield audio(linear16(say(1, 1.0)))
        while True:
            time.sleep(0.05)
            yield audio(b"\0")

    call = service.stream(trickle())
    assert next(call).results[0].is_final
    with pytest.raises(grpc.RpcError) as caught:
        next(call)
    told = refusal(caught.value)
    assert (told.code, told.reason) == (grpc.StatusCode.OUT_OF_RANGE, "STREAM_IDLE")


def test_who_falls_silent_in_mid_sentence_gets_what_was_said_before_the_stream_ends_as_idle(start: Start) -> None:
    service = start(idle_timeout_s=0.4)

    release = threading.Event()

    def half_a_sentence() -> Iterator[pb.StreamingRecognizeRequest]:
        yield config()
        yield audio(linear16(say(0.5, 1, 2)))
        release.wait(10)

    responses, told = until_error(service.stream(half_a_sentence()))
    release.set()
    assert told.reason == "STREAM_IDLE"
    assert transcript(responses) == "one two"


def test_keep_alive_keeps_an_idle_stream(start: Start) -> None:
    service = start(idle_timeout_s=0.4)

    def slow() -> Iterator[pb.StreamingRecognizeRequest]:
        yield config()
        for _ in range(8):
            time.sleep(0.15)
            yield KEEP_ALIVE
        yield audio(linear16(say(1)))

    assert transcript(service.stream(slow())) == "one"


def test_first_message_must_come_in_time(start: Start) -> None:
    service = start(server={"startup_timeout_s": 0.2})
    release = threading.Event()

    def never() -> Iterator[pb.StreamingRecognizeRequest]:
        release.wait(10)
        yield config()

    told = service.refused(never())
    release.set()
    assert (told.code, told.reason) == (grpc.StatusCode.OUT_OF_RANGE, "STREAM_IDLE")


def test_longest_stream_gets_its_finals_first(start: Start) -> None:
    service = start(max_stream_s=3.0)
    got, told = until_error(service.stream([config(), *chunks(linear16(say(1, 1.0, 2, 1.0, 3, 4, 5)))]))
    assert finals(got) == ["one", " two", " three"]
    assert (told.code, told.reason) == (grpc.StatusCode.OUT_OF_RANGE, "STREAM_TOO_LONG")


def test_each_response_carries_the_request_id_that_the_client_chose(service: Service) -> None:
    call = service.stream([config(), audio(SPEECH)], metadata=(("x-request-id", "meeting-42"),))
    assert {response.request_id for response in call} == {"meeting-42"}
    assert dict(call.initial_metadata())["x-request-id"] == "meeting-42"


@pytest.mark.parametrize("bad", ["", "a b", "x" * 65, "new\\nline"])
def test_bad_request_id_is_replaced(service: Service, bad: str) -> None:
    call = service.stream([config(), audio(SPEECH)], metadata=(("x-request-id", bad),))
    (chosen,) = {response.request_id for response in call}
    assert len(chosen) == 32 and chosen != bad


def test_streams_beside_each_other_do_not_mix(service: Service) -> None:
    texts: dict[int, str] = {}

    def run(digit: int) -> None:
        data = linear16(say(digit, 0, digit, 1.0, digit))
        texts[digit] = transcript(service.stream([config(), *chunks(data)]))

    threads = [threading.Thread(target=run, args=(digit,)) for digit in (1, 2, 3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    words = {1: "one", 2: "two", 3: "three", 4: "four"}
    assert texts == {digit: f"{word} zero {word} {word}" for digit, word in words.items()}
