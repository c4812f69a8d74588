"""The scripts under benchmarks/ do as they say: LocalAgreement's windows, clipped clips, clients that leave rudely."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_service.config import ServerSettings, Settings
from asr_service.server.app import ServerThread
from benchmarks import pocketsphinx_baseline
from benchmarks.churn import CANCEL, CLOSE, PROPER, RESET, cycle
from benchmarks.local_agreement import TRIM_S, windows
from benchmarks.long_stream import without_ends
from benchmarks.relay import Relay
from tests.fake_engine import FakeEngine, linear16, say


@given(
    length_s=st.floats(1.0, 90.0),
    chunk_s=st.sampled_from([0.24, 0.64, 1.0]),
    sentence_s=st.sampled_from([2.0, 5.0, 40]),
)
def test_windows_end_chunk_by_chunk_and_never_give_up_what_is_not_committed(length_s, chunk_s, sentence_s):
    turns = windows(length_s, chunk_s, sentence_s)
    assert len(turns) == int(length_s / chunk_s + 1e-9)
    for (begin, end), (next_begin, next_end) in itertools.pairwise(turns):
        assert next_end - end == pytest.approx(chunk_s)
        assert begin <= next_begin <= end - chunk_s + 1e-9 or next_begin == begin  # what two windows have heard
        assert end - begin <= TRIM_S + chunk_s + 1e-9


def test_the_baselines_help_needs_no_pocketsphinx_and_a_run_says_what_does(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)  # as where it is not installed
    monkeypatch.setattr(sys, "argv", ["pocketsphinx_baseline", "--help"])
    with pytest.raises(SystemExit) as left:
        pocketsphinx_baseline.main()
    assert left.value.code == 0
    monkeypatch.setattr(sys, "argv", ["pocketsphinx_baseline", "a.jsonl", "--out", str(tmp_path / "o.jsonl")])
    assert pocketsphinx_baseline.main() == 2
    assert "pip install pocketsphinx" in capsys.readouterr().err


def test_silent_ends_of_a_clip_are_cut_off_and_its_pauses_are_not():
    speech = say(1.0, 3, 0.5, 4, 1.0)
    kept = without_ends(speech)
    assert len(kept) / 16_000 == pytest.approx(2 * 0.32 + 0.5 + 2 * 0.05, abs=0.03)
    assert np.abs(kept[:1600]).max() > 0.1 and np.abs(kept[-1600:]).max() > 0.1


@pytest.mark.parametrize("kind", [PROPER, CANCEL, CLOSE, RESET])
def test_a_client_of_the_churn_leaves_as_it_says_and_nothing_of_it_stays(kind):
    engine = FakeEngine()
    settings = Settings(server=ServerSettings(address="localhost:0", drain_s=0.0, grace_s=2.0))
    with ServerThread(settings, lambda: engine) as address:
        assert asyncio.run(cycle(address, linear16(say(1, 2)), kind, 0.05)) == kind
        deadline = time.monotonic() + 5
        while engine.active_streams and time.monotonic() < deadline:
            time.sleep(0.01)
        assert engine.active_streams == 0


async def closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


def test_the_relay_resets_the_servers_connection():
    ended: list[type] = []

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.read(100):
                pass
            ended.append(type(None))
        except ConnectionResetError as error:
            ended.append(type(error))
        await closed(writer)

    async def play() -> None:
        server = await asyncio.start_server(serve_one, "localhost", 0)
        async with Relay(server.sockets[0].getsockname()[1]) as relay:
            host, port = relay.address.split(":")
            _, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"hello")
            await asyncio.sleep(0.1)
            relay.reset()
            for _ in range(100):
                if ended:
                    break
                await asyncio.sleep(0.02)
            await closed(writer)
        server.close()

    asyncio.run(play())
    assert ended == [ConnectionResetError]
