"""The session on an event loop: one wake for each burst, room and results awaited, timers that fire."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest

from asr_service.audio import AudioLimits, StreamDecoder
from asr_service.config import EndpointingSettings, StreamSettings
from asr_service.errors import InternalError, InvalidAudio, ShuttingDown, SlowConsumer, StreamIdle
from asr_service.streaming.async_session import AsyncSession, LoopWaker
from asr_service.streaming.updates import UpdateBuilder
from asr_service.types import AudioEncoding, AudioFormat, Mode, RecognitionConfig
from tests.audio.samples import OPUS_TAGS, ogg_page, opus_head
from tests.fake_engine import FakeEngine, linear16, say, silence

AUDIO = AudioFormat(AudioEncoding.LINEAR16, 16_000)


def test_a_burst_of_wakes_is_one_call_on_the_loop() -> None:
    class Loop:
        scheduled: list[Any]

        def __init__(self) -> None:
            self.scheduled = []

        def call_soon_threadsafe(self, callback: Any) -> None:
            self.scheduled.append(callback)

    loop, called = Loop(), []
    waker = LoopWaker(loop)  # type: ignore[arg-type]
    one, two = (lambda: called.append(1)), (lambda: called.append(2))
    for callback in (one, two, one, one):
        waker.wake(callback)
    assert len(loop.scheduled) == 1
    loop.scheduled.pop()()
    assert called == [1, 2]
    waker.wake(two)
    assert len(loop.scheduled) == 1


def test_a_call_back_that_fails_costs_the_others_nothing() -> None:
    called: list[int] = []

    async def main() -> None:
        waker = LoopWaker(asyncio.get_running_loop())
        for callback in (lambda: called.append(1), lambda: called[9], lambda: called.append(2)):
            waker.wake(callback)
        await asyncio.sleep(0)

    asyncio.run(main())
    assert called == [1, 2]


def test_a_wake_after_the_loop_has_closed_is_no_error() -> None:
    loop = asyncio.new_event_loop()
    waker = LoopWaker(loop)
    loop.close()
    waker.wake(lambda: None)


def run(scenario: Any, engine: FakeEngine | None = None, *, audio: AudioFormat = AUDIO, **settings: Any) -> FakeEngine:
    """Run `scenario(session, engine)` with a session that is closed at the end, as a server does."""
    engine = engine or FakeEngine()
    engine.start()

    async def main() -> None:
        session = AsyncSession(
            engine,
            RecognitionConfig(audio=audio, mode=Mode.STREAMING),
            decoder=StreamDecoder(audio, limits=AudioLimits()),
            waker=LoopWaker(asyncio.get_running_loop()),
            settings=StreamSettings(**settings),
            endpointing=EndpointingSettings(),
        )
        try:
            await asyncio.wait_for(scenario(session, engine), 20)
        finally:
            session.close()
            session.close()

    try:
        asyncio.run(main())
    finally:
        engine.gate.set()
        engine.stop()
    assert engine.active_streams == 0
    return engine


async def words(session: AsyncSession) -> list[str]:
    return [result.alternatives[0].text async for update in session.updates() for result in update.results]


def test_a_closed_session_is_held_by_nothing() -> None:
    engine = FakeEngine()

    def session(waker: LoopWaker) -> weakref.ref[AsyncSession]:
        made = AsyncSession(
            engine,
            RecognitionConfig(mode=Mode.STREAMING),
            decoder=StreamDecoder(AUDIO, limits=AudioLimits()),
            waker=waker,
            settings=StreamSettings(),
            endpointing=EndpointingSettings(),
        )
        made.close()
        return weakref.ref(made)

    async def main() -> None:
        closed = session(LoopWaker(asyncio.get_running_loop()))
        gc.collect()
        assert closed() is None

    asyncio.run(main())


def test_pushing_waits_for_room_and_goes_on_with_it() -> None:
    async def scenario(session: AsyncSession, engine: FakeEngine) -> None:
        engine.gate.clear()
        pushing = asyncio.create_task(session.push(linear16(say(*[1, 1.0] * 10))))
        await asyncio.sleep(0.1)
        assert not pushing.done()
        engine.gate.set()
        await pushing
        await session.finish()
        assert await words(session) == ["one"] * 10

    assert run(scenario, max_buffered_s=4.0).most_queued_s <= 4.0


def test_a_message_of_much_audio_leaves_others_their_turns() -> None:
    async def scenario(session: AsyncSession, engine: FakeEngine) -> None:
        pushing = asyncio.create_task(session.push(linear16(silence(8.0))))
        turns = 0
        while not pushing.done():
            await asyncio.sleep(0)
            turns += 1
        assert turns >= 8
        await session.finish()
        await words(session)

    run(scenario)


def test_a_message_without_audio_leaves_others_their_turns() -> None:
    head = ogg_page([opus_head()], sequence=0, granule=0, first=True) + ogg_page([OPUS_TAGS], sequence=1, granule=0)
    message = head + b"".join(ogg_page([], sequence=2 + k, granule=0) for k in range(2**18 // 27))

    async def scenario(session: AsyncSession, engine: FakeEngine) -> None:
        pushing = asyncio.create_task(session.push(message))
        turns = 0
        while not pushing.done():
            await asyncio.sleep(0)
            turns += 1
        assert turns >= len(message) // 2**16
        await session.finish()
        assert await words(session) == []

    run(scenario, audio=AudioFormat(AudioEncoding.OGG_OPUS))


def test_a_large_message_is_decoded_to_its_last_byte() -> None:
    async def scenario(session: AsyncSession, engine: FakeEngine) -> None:
        await session.push(linear16(silence((2**16 + 2) / 32_000)))
        assert session.session.received_s == (2**16 + 2) / 32_000
        await session.push(b"")
        await session.finish()
        await words(session)

    run(scenario)


def test_a_session_that_fails_lets_its_pusher_go() -> None:
    async def scenario(session: AsyncSession, engine: FakeEngine) -> None:
        engine.gate.clear()
        pushing = asyncio.create_task(session.push(linear16(silence(60.0))))
        await asyncio.sleep(0.05)
        session.fail(InvalidAudio("bad"))
        await pushing
        with pytest.raises(InvalidAudio):
            await words(session)

    run(scenario)


def test_ending_early_gives_finals_then_the_reason() -> None:
    async def scenario(session: AsyncSession, engine: FakeEngine) -> None:
        await session.push(linear16(say(1, 2)))
        session.end_early(ShuttingDown("stopping"))
        update = await anext(updates := session.updates())
        assert update.results[0].alternatives[0].text == "one two"
        with pytest.raises(ShuttingDown):
            await anext(updates)

    run(scenario)


async def words_of_an_engine_behind(session: AsyncSession, engine: FakeEngine, for_s: float) -> list[str]:
    """More audio than the session may buffer, pushed to an engine that does nothing for so long."""
    engine.gate.clear()
    pushing = asyncio.create_task(session.push(linear16(say(*[1, 1.0] * 5))))
    await asyncio.sleep(for_s)
    engine.gate.set()
    await pushing
    await session.finish()
    return await words(session)


def test_idle_timer_fires_while_nobody_pushes_but_not_while_the_engine_is_behind() -> None:
    async def idle(session: AsyncSession, engine: FakeEngine) -> None:
        with pytest.raises(StreamIdle):
            await words(session)

    async def behind(session: AsyncSession, engine: FakeEngine) -> None:
        assert await words_of_an_engine_behind(session, engine, 0.6) == ["one"] * 5

    run(idle, idle_timeout_s=0.2)
    run(behind, idle_timeout_s=0.2, max_buffered_s=4.0)


def test_a_write_that_never_ends_is_given_up() -> None:
    async def scenario(session: AsyncSession, engine: FakeEngine) -> None:
        await session.push(linear16(say(*[1, 1.0] * 3)))
        async for _ in session.updates():
            write = asyncio.get_running_loop().create_future()
            with pytest.raises(SlowConsumer):
                await session.deliver(write)
            assert write.cancelled()
            break

    run(scenario, max_pending_updates=2, slow_consumer_s=0.2)


def test_an_idle_timeout_that_passes_while_the_engine_is_behind_keeps_no_loop_busy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fired: list[None] = []
    original = AsyncSession._on_timer
    monkeypatch.setattr(AsyncSession, "_on_timer", lambda session: (fired.append(None), original(session)))

    async def scenario(session: AsyncSession, engine: FakeEngine) -> None:
        await words_of_an_engine_behind(session, engine, 0.3)

    run(scenario, idle_timeout_s=0.1, max_buffered_s=4.0)
    assert 0 < len(fired) < 50


def test_a_flush_comes_after_every_byte_that_was_pushed() -> None:
    async def scenario(session: AsyncSession, engine: FakeEngine) -> None:
        await session.push(linear16(silence(1.0)))
        await session.push(bytes(100))
        await session.flush()
        assert session.session.received_s == 1.0 + 100 / 32_000
        await session.finish()
        await words(session)

    run(scenario)


def test_a_result_that_cannot_be_told_ends_the_stream_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(UpdateBuilder, "final", lambda *_: 1 / 0)

    async def scenario(session: AsyncSession, engine: FakeEngine) -> None:
        await session.push(linear16(say(1)))
        await session.finish()
        with pytest.raises(InternalError):
            await words(session)

    run(scenario)
