"""Our small client against a real server, blocking and on an event loop."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile

from asr_service.client import FLUSH, KEEP_ALIVE, AsyncClient, Client, Content, Control, ServiceError
from asr_service.config import ServerSettings, Settings
from asr_service.server.app import SpeechServer
from tests.fake_engine import FakeEngine, linear16, say
from tests.server.conftest import Service, Start
from tests.server.messages import finals, transcript

SPEECH = say(1, 2, 1.0, 3)
RAW = {"encoding": "linear16", "sample_rate_hertz": 16_000}


def wav() -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, SPEECH, 16_000, format="WAV")
    return buffer.getvalue()


def chunks() -> Iterator[bytes]:
    data = linear16(SPEECH)
    yield from (data[start : start + 3_200] for start in range(0, len(data), 3_200))


def test_file_and_its_bytes_and_its_chunks_give_the_same_words(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav())
    with Client(service.address) as client:
        assert client.recognize(path).transcript == "one two three"
        assert client.recognize(str(path), mode="streaming").transcript == "one two three"
        assert client.recognize(wav()).transcript == "one two three"
        assert client.recognize(memoryview(wav())).transcript == "one two three"
        assert transcript(client.stream(chunks(), **RAW)) == "one two three"


def test_options_are_the_fields_of_the_api(service: Service) -> None:
    with Client(service.address) as client:
        silence = {"min_trailing_silence": 5.0}
        assert finals(client.stream(chunks(), endpointing=silence, **RAW)) == ["one two three"]
        short = {"min_trailing_silence": 0.6}
        assert finals(client.stream(chunks(), endpointing=short, **RAW)) == ["one two", " three"]
        assert finals(client.stream(chunks(), single_utterance=True, **RAW)) == ["one two"]
        with pytest.raises(TypeError, match="langauge"):
            client.recognize(wav(), langauge="en")
        with pytest.raises(TypeError, match=r"interim_result is no option; there are .*interim_results.*language_code"):
            list(client.stream(chunks(), interim_result=True, **RAW))
        with pytest.raises(TypeError, match=r"phrase_hints\[0\] is 'two', must be a dict of phrases"):
            client.recognize(wav(), phrase_hints=["two"])
        with pytest.raises(ValueError, match=r"^mode is 'best'; there are streaming, accurate$"):
            client.recognize(wav(), mode="best")


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ({"phrase_hints": {"phrases": ["two"]}}, r"phrase_hints is \{'phrases': .*must be a list"),
        ({"phrase_hints": "two"}, "phrase_hints is 'two', must be a list"),
        ({"phrase_hints": [{"phrases": "two"}]}, r"phrase_hints\[0\].phrases is 'two', must be a list"),
        ({"phrase_hints": [{"phrases": [3]}]}, r"phrase_hints\[0\].phrases\[0\] is 3, must be a text"),
        ({"phrase_hints": [{}, {"boost": "x"}]}, r"phrase_hints\[1\].boost is 'x', must be a number"),
        ({"phrase_hints": [{"phrase": ["two"]}]}, r"phrase_hints\[0\]: phrase is no field; there are boost, phrases"),
        ({"phrase_hints": [Control()]}, r"phrase_hints\[0\] is , must be a dict of phrases, boost"),
        ({"endpointing": 0.6}, "endpointing is 0.6, must be a dict of .*min_trailing_silence"),
        (
            {"endpointing": {"min_trailing_silence": "0.6"}},
            "endpointing.min_trailing_silence is '0.6', must be a number of seconds",
        ),
        ({"language_code": 3}, "language_code is 3, must be a text"),
        ({"language_code": ["en"]}, r"language_code is \['en'\], must be a text"),
        ({"sample_rate_hertz": "16000"}, "sample_rate_hertz is '16000', must be a whole number"),
        ({"max_alternatives": 1.5}, "max_alternatives is 1.5, must be a whole number"),
        ({"max_alternatives": None}, "max_alternatives is None, must be a whole number"),
        ({"enable_word_confidence": "yes"}, "enable_word_confidence is 'yes', must be True or False"),
        ({"mode": 1.5}, "mode is 1.5, must be one of streaming, accurate"),
    ],
    ids=str,
)
def test_an_option_of_another_type_is_a_type_error_that_names_it(option: dict[str, Any], told: str) -> None:
    with Client("localhost:1") as client, pytest.raises(TypeError, match=f"^{told}"):
        list(client.stream(chunks(), **(RAW | option)))


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ({"audio_channel": 2**40}, "audio_channel is 1099511627776: "),
        ({"language_code": "\ud800"}, r"language_code is '\\ud800': "),
        ({"enable_word_confidence": 2**70}, "enable_word_confidence is 1180591620717411303424: "),
        ({"endpointing": {"max_utterance": float("nan")}}, "endpointing.max_utterance is nan: "),
    ],
    ids=ascii,
)
def test_an_option_out_of_range_is_a_value_error_that_names_it(option: dict[str, Any], told: str) -> None:
    with Client("localhost:1") as client, pytest.raises(ValueError, match=f"^{told}"):
        list(client.stream(chunks(), **option))


def test_recording_that_is_too_large_for_one_message_is_told_where_it_goes(start: Start) -> None:
    service = start(server={"max_message_bytes": 1 << 16, "max_chunk_bytes": 1 << 15, "max_config_bytes": 1 << 15})
    with Client(service.address) as client, pytest.raises(ServiceError, match=r"larger than max.* `stream`") as caught:
        client.recognize(bytes(1 << 17))
    assert caught.value.status == "RESOURCE_EXHAUSTED"


def test_clients_share_a_connection_unless_they_have_their_own(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "asr.call")

    def peers() -> set[str]:
        lines = [record for record in caplog.records if (record.name, record.msg) == ("asr.call", "call")]
        return {line.__dict__["fields"]["peer"] for line in lines}

    def ask(*, own_connection: bool) -> None:
        with (
            Client(service.address, own_connection=own_connection) as one,
            Client(service.address, own_connection=own_connection) as other,
        ):
            one.server_info()
            other.server_info()

    async def ask_on_a_loop() -> None:
        async with AsyncClient(service.address, own_connection=True) as one:
            await one.recognize(wav())

    ask(own_connection=False)
    assert len(peers()) == 1
    ask(own_connection=True)
    assert len(peers()) == 3
    asyncio.run(ask_on_a_loop())
    assert len(peers()) == 4


def test_messages_in_lists_are_given_as_dicts(service: Service) -> None:
    with Client(service.address) as client, pytest.raises(ServiceError) as caught:
        client.recognize(bytearray(wav()), phrase_hints=[{"phrases": ["one", "two"], "boost": 2.0}, {"phrases": []}])
    # The tones have no hints, so that the server's word is that they arrived.
    assert (caught.value.reason, caught.value.field) == ("UNSUPPORTED", "config.phrase_hints")


def test_metadata_goes_with_the_call_it_is_given_to(service: Service) -> None:
    mine = [("x-request-id", "abc-1")]
    with Client(service.address) as client:
        assert client.recognize(wav(), metadata=mine).response.request_id == "abc-1"
        assert {response.request_id for response in client.stream(chunks(), metadata=mine, **RAW)} == {"abc-1"}
        assert client.recognize(wav()).response.request_id not in {"abc-1", ""}
        client.server_info(metadata=mine)


def test_controls_among_the_chunks_end_an_utterance_and_keep_the_stream(start: Start) -> None:
    service = start(idle_timeout_s=0.4)

    def controlled() -> Iterator[bytes | Control]:
        yield linear16(say(1, 2))
        yield FLUSH
        for _ in range(4):
            time.sleep(0.2)
            yield KEEP_ALIVE
        yield linear16(say(3))

    with Client(service.address) as client:
        assert finals(client.stream(controlled(), **RAW)) == ["one two", " three"]


def test_error_of_the_callers_audio_is_the_callers(service: Service) -> None:
    def broken() -> Iterator[bytes]:
        yield linear16(SPEECH)
        raise OSError("unplugged")

    with Client(service.address) as client, pytest.raises(OSError, match="unplugged"):
        list(client.stream(broken(), **RAW))


@pytest.mark.parametrize(
    ("after", "error"), [(OSError("unplugged"), OSError), ("text, no bytes", TypeError)], ids=["raises", "wrong type"]
)
def test_error_of_the_callers_audio_is_the_callers_on_an_event_loop_too(
    service: Service, after: Exception | str, error: type[Exception]
) -> None:
    async def broken() -> AsyncIterator[Any]:
        yield linear16(SPEECH)
        if isinstance(after, Exception):
            raise after
        yield after

    async def main() -> None:
        async with AsyncClient(service.address) as client:
            with pytest.raises(error, match="unplugged" if error is OSError else "bytes"):
                async for _ in client.stream(broken(), **RAW):
                    pass

    asyncio.run(main())


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_chunks_are_bytes_of_any_kind(service: Service, kind: Callable[[bytes], Content]) -> None:
    async def alike() -> AsyncIterator[Content]:
        for chunk in chunks():
            yield kind(chunk)

    async def ask() -> str:
        async with AsyncClient(service.address) as client:
            return "".join(finals([response async for response in client.stream(alike(), **RAW)]))

    with Client(service.address) as client:
        assert transcript(client.stream((kind(chunk) for chunk in chunks()), **RAW)) == "one two three"
    assert asyncio.run(ask()) == "one two three"


@pytest.mark.parametrize(("item", "kind"), [("text", "str"), (1, "int"), (None, "NoneType"), ([b"x"], "list")])
def test_a_chunk_of_another_type_is_a_type_error_that_names_it(service: Service, item: Any, kind: str) -> None:
    told = f"^chunks has {kind}, must have bytes, bytearray, memoryview, FLUSH or KEEP_ALIVE$"
    with Client(service.address) as client, pytest.raises(TypeError, match=told):
        list(client.stream([linear16(SPEECH), item], **RAW))


def test_a_task_that_is_cancelled_in_a_stream_is_cancelled(service: Service) -> None:
    async def main() -> None:
        answered = asyncio.Event()

        async def endless() -> AsyncIterator[bytes]:
            yield linear16(SPEECH)
            await asyncio.Event().wait()

        async def read() -> None:
            async with AsyncClient(service.address) as client:
                async for _ in client.stream(endless(), **RAW):
                    answered.set()

        task = asyncio.create_task(read())
        await answered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_stopping_early_frees_the_server(service: Service) -> None:
    with Client(service.address) as client:
        responses = client.stream(chunks(), **RAW)
        next(responses)
        responses.close()
        assert client.server_info().models[0].name == "tones"


def test_nobody_listens(service: Service) -> None:
    with Client("localhost:1") as client, pytest.raises(ServiceError) as caught:
        client.server_info()
    assert caught.value.status == "UNAVAILABLE" and caught.value.reason == ""


def test_a_unary_call_takes_no_longer_than_it_was_given(start: Start) -> None:
    service = start()
    service.engine.gate.clear()

    async def ask() -> None:
        async with AsyncClient(service.address, timeout_s=0.2) as client:
            await client.recognize(wav())

    with Client(service.address, timeout_s=0.2) as client, pytest.raises(ServiceError) as caught:
        client.recognize(wav())
    assert caught.value.status == "DEADLINE_EXCEEDED"
    with pytest.raises(ServiceError) as caught:
        asyncio.run(ask())
    assert caught.value.status == "DEADLINE_EXCEEDED"


def test_asynchronous_client() -> None:
    async def main() -> None:
        settings = Settings(server=dataclasses.replace(ServerSettings(), address="localhost:0", drain_s=0.0))
        server = SpeechServer(settings, FakeEngine)
        await server.open()
        try:
            async with AsyncClient(f"localhost:{server.port}") as client:
                assert (await client.recognize(wav())).transcript == "one two three"
                assert finals([response async for response in client.stream(alive(), **RAW)]) == ["one two", " three"]
                mine = [("x-request-id", "abc-2")]
                assert (await client.recognize(wav(), metadata=mine)).response.request_id == "abc-2"
                info = await client.server_info(metadata=mine)
                assert info.models[0].name == "tones"
                responses = [response async for response in client.stream(flushed(), metadata=mine, **RAW)]
                assert finals(responses) == ["one", " two"]
                assert {response.request_id for response in responses} == {"abc-2"}
                with pytest.raises(ServiceError) as caught:
                    await client.recognize(b"x")
                assert caught.value.reason == "ENCODING_UNKNOWN"
        finally:
            await server.stop()

    async def flushed() -> AsyncIterator[bytes | Control]:
        for item in (linear16(say(1)), FLUSH, KEEP_ALIVE, linear16(say(2))):
            yield item

    async def alive() -> AsyncIterator[bytes]:
        for chunk in chunks():
            yield chunk

    asyncio.run(main())
