"""The microphone, with a sound card that plays a file; and the live line of a terminal."""

from __future__ import annotations

import io
import sys
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from asr_service.cli import main
from asr_service.commands.live_view import LiveView
from asr_service.commands.microphone import MAX_WAITING_CHUNKS, microphone_chunks
from asr_service.config import ServerSettings, Settings
from asr_service.errors import Unavailable, Unsupported
from asr_service.server.app import ServerThread
from tests.fake_engine import FakeEngine, linear16, say


class SoundCard:
    """As `sounddevice.RawInputStream`: calls back on a thread of its own."""

    def __init__(self, data: bytes, after: Callable[[], None], **wanted: Any) -> None:
        assert (wanted["samplerate"], wanted["channels"], wanted["dtype"]) == (16_000, 1, "int16")
        size = 2 * wanted["blocksize"]
        self._blocks = [data[start : start + size] for start in range(0, len(data), size)]
        self._callback, self._after = wanted["callback"], after
        self._thread = threading.Thread(target=self._play)

    def _play(self) -> None:
        for block in self._blocks:
            self._callback(block, len(block) // 2, None, None)
        self._after()

    def __enter__(self) -> SoundCard:
        self._thread.start()
        return self

    def __exit__(self, *problem: object) -> None:
        self._thread.join()


def install(monkeypatch: pytest.MonkeyPatch, data: bytes, after: Callable[[], None]) -> None:
    module = types.ModuleType("sounddevice")
    module.PortAudioError = OSError  # type: ignore[attr-defined]
    module.RawInputStream = lambda **wanted: SoundCard(data, after, **wanted)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sounddevice", module)


@pytest.fixture
def server() -> Iterator[str]:
    settings = Settings(server=ServerSettings(address="localhost:0", drain_s=0.0))
    with ServerThread(settings, FakeEngine) as address:
        yield address


def test_words_of_the_microphone_until_interrupted(
    server: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import signal

    # Ctrl-C a second after the last sound: what was said still becomes final.
    def interrupt() -> None:
        threading.Timer(1.0, signal.raise_signal, [signal.SIGINT]).start()

    install(monkeypatch, linear16(say(1, 2, 1.2, 3)), interrupt)
    assert main(["stream", "--mic", "--server", server]) == 0
    told = capsys.readouterr()
    assert told.out == "one two\nthree\n"
    assert "final after its last word ended" in told.err


def test_sound_that_nobody_takes_ends_the_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = threading.Event()
    played = threading.Event()
    install(monkeypatch, bytes(2 * 640 * (MAX_WAITING_CHUNKS + 10)), played.set)
    chunks = microphone_chunks(640, stop)
    first = next(chunks)
    assert played.wait(10)
    assert stop.is_set()
    # What was heard before is not lost, and nothing comes after a gap.
    heard = [first]
    with pytest.raises(Unavailable, match="no audio could be sent for 10 s"):
        heard.extend(chunks)
    assert MAX_WAITING_CHUNKS <= len(heard) <= MAX_WAITING_CHUNKS + 1


@pytest.mark.parametrize("fails", ["opened", "started"])
def test_no_microphone_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch, fails: str) -> None:
    def none(*_: Any, **wanted: Any) -> None:
        raise OSError("no default input device")

    install(monkeypatch, b"", lambda: None)
    if fails == "opened":
        monkeypatch.setattr(sys.modules["sounddevice"], "RawInputStream", none)
    else:
        monkeypatch.setattr(SoundCard, "__enter__", none)
    with pytest.raises(Unsupported, match="no default input device"):
        next(microphone_chunks(640, threading.Event()))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_live_line_is_drawn_in_place_and_gives_way_to_the_final() -> None:
    output, screen = io.StringIO(), Terminal()
    view = LiveView(output, screen, show_partials=True)
    view.partial("to be", " or")
    view.final("to be or not")
    assert screen.getvalue() == "\r\x1b[K\x1b[1mto be\x1b[0m\x1b[2m or\x1b[0m\r\x1b[K"
    assert output.getvalue() == "to be or not\n"


def test_without_partials_a_terminal_is_left_alone() -> None:
    output, screen = io.StringIO(), Terminal()
    view = LiveView(output, screen, show_partials=False)
    view.partial("to be", " or")
    view.final("to be or not")
    view.clear()
    assert screen.getvalue() == ""
