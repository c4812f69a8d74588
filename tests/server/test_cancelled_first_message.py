"""A call that is cancelled at the very moment its first message comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from asr_service.config import Settings
from asr_service.generated.asr.v1 import speech_pb2 as pb
from asr_service.server.interceptors import Call, current_call
from asr_service.server.servicer import SpeechServicer
from tests.fake_engine import FakeEngine
from tests.server.messages import config


@pytest.mark.asyncio
@pytest.mark.parametrize("turns", range(5))
async def test_the_cancel_is_not_lost(turns: int) -> None:
    """`asyncio.wait_for` swallows it in one of these turns of the loop: the call then held its slot for ever."""
    servicer = SpeechServicer(Settings())
    servicer.engine = engine = FakeEngine()
    current_call.set(Call("cancelled"))
    arrived = asyncio.Event()

    async def requests() -> AsyncIterator[pb.StreamingRecognizeRequest]:
        await arrived.wait()
        yield config()
        await asyncio.Event().wait()

    context: Any = None
    call = asyncio.ensure_future(servicer.StreamingRecognize(requests(), context))
    await asyncio.sleep(0.01)
    arrived.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    call.cancel()
    await asyncio.wait([call], timeout=1.0)
    assert call.cancelled()
    assert engine.active_streams == 0
    assert servicer.live_calls == 0
