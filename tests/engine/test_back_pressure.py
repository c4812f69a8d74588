"""A session and the engine behind it: however little audio may wait, there is room for more after each turn."""

from __future__ import annotations

import dataclasses

import pytest

from asr_service.config import EndpointingSettings, StreamSettings
from asr_service.streaming.session import End, Session
from asr_service.types import Mode, RecognitionConfig
from tests.engine.listening import babble
from tests.engine.stepped import Stepped


def least_buffered_s(block_s: float) -> float:
    return max(4 * block_s, block_s + StreamSettings.MIN_ROOM_S)


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("block_s", [0.02, 0.05, 0.1])
def test_the_least_that_may_be_buffered_is_enough_to_go_on(engine: Stepped, block_s: float, mode: Mode) -> None:
    settings = dataclasses.replace(StreamSettings(), block_s=block_s, max_buffered_s=least_buffered_s(block_s))
    session = Session(
        engine,
        RecognitionConfig(mode=mode),
        decoder=None,
        wake=lambda: None,
        settings=settings,
        endpointing=EndpointingSettings(),
    )
    for block in session.blocks(babble(3.0, 1)):
        if not session.has_room:
            engine.settle()
            session.collect()
        assert session.has_room
        session.feed(block)
    session.finish()
    engine.settle()
    session.collect()
    assert session.end is End.COMPLETED
