"""A bundle as the system under test, in this process: the engine and sessions that serve, on a virtual clock.

The engine has no thread here: what a message brings about is done before the next one is fed, and its computation is
timed. So there is nothing to wait for, and the words are those of a server (they depend on the audio alone).
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from asr_service.config import Settings
from asr_service.engine.engine import BatchingEngine
from asr_service.errors import BundleError
from asr_service.evaluation.latency import MESSAGE_S, StreamLog, VirtualClock
from asr_service.evaluation.output import Output
from asr_service.evaluation.reference import Reference
from asr_service.evaluation.waveform import read_waveform
from asr_service.lexicon import Lexicon
from asr_service.model.bundle import CONFIG_FILE, DEFAULT_MODEL, LEXICON_FILE, LM_FILE, SHIPPED_DIR, Bundle, load_bundle
from asr_service.model.digest import model_hash
from asr_service.streaming.session import Session
from asr_service.streaming.updates import StreamUpdate
from asr_service.types import SAMPLE_RATE_HZ, Mode, RecognitionConfig

# The language model of a bundle without the file of one.
NO_N_GRAM = "none (the bundle has no n-gram)"


class SteppedEngine(BatchingEngine):
    """The engine without its thread: it works when it is told to."""

    def start(self) -> None:
        pass

    @property
    def healthy(self) -> bool:
        return not self.failing

    def settle(self) -> None:
        """Do all there is to do."""
        while self.turn():
            pass


@dataclass(frozen=True, slots=True)
class BundleSystem:
    """A bundle in a mode.

    Attributes:
        model_dir: None for the bundle that ships in the package.
        with_lm: False leaves the bundle's language model out.
        chunk_frames: length of a streaming chunk in 40 ms frames; None is what the bundle has for `engine.latency`.
    """

    mode: Mode = Mode.ACCURATE
    model_dir: Path | None = None
    with_lm: bool = True
    chunk_frames: int | None = None
    settings: Settings = field(default_factory=Settings)

    @property
    def directory(self) -> Path:
        return self.model_dir or SHIPPED_DIR / DEFAULT_MODEL

    def load(self) -> Bundle:
        """At the latency of the settings. Raises BundleError; ConfigError for a chunk length that cannot be."""
        bundle = load_bundle(self.directory).at(self.settings.engine.latency)
        if not self.with_lm:
            bundle = dataclasses.replace(bundle, lm_path=None)
        if self.chunk_frames is not None:
            streaming = dataclasses.replace(bundle.streaming, chunk_frames=self.chunk_frames)
            bundle = dataclasses.replace(bundle, streaming=streaming)
        return bundle

    @contextlib.contextmanager
    def open(self) -> Iterator[InProcess]:
        # One recording after the other: caches for one stream are enough.
        engine = SteppedEngine(self.load(), dataclasses.replace(self.settings.engine, max_streams=1))
        try:
            yield InProcess(engine, self.mode, self.settings)
        finally:
            engine.stop()

    def identity(self) -> Mapping[str, str]:
        """Raises BundleError."""
        return {
            "model": bundle_name(self.directory),
            "model_hash": model_hash(self.directory),
            "mode": self.mode.value,
            "language_model": self._language_model(),
            "chunk_frames": "the bundle's" if self.chunk_frames is None else str(self.chunk_frames),
            "settings_sha256": hashlib.sha256(repr(self.settings).encode()).hexdigest(),
        }

    def _language_model(self) -> str:
        if not (self.directory / LM_FILE).is_file():
            return NO_N_GRAM
        return "the bundle's" if self.with_lm else "none"

    def vocabulary(self) -> Lexicon | None:
        """The bundle's lexicon, where it has one. Other words can come out too, spelled from pieces, but seldom do."""
        path = self.directory / LEXICON_FILE
        return Lexicon.load(path) if path.is_file() else None


def bundle_name(directory: Path) -> str:
    """The name that a bundle gives itself, without loading it. Raises BundleError."""
    try:
        return str(json.loads((directory / CONFIG_FILE).read_text(encoding="utf-8"))["name"])
    except OSError as error:
        raise BundleError(f"model directory {directory}: cannot read {CONFIG_FILE}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{directory / CONFIG_FILE}: no name in it") from error


class InProcess:
    """One stream after the other on an engine without a thread.

    In streaming mode the audio comes in messages of `MESSAGE_S`, and the timing has latencies. In accurate mode, where
    nothing is shown before its utterance has ended, it comes as fast as it goes in, and the timing has the computation
    alone. Decoding the file is not timed: a live stream's audio comes as samples.
    """

    def __init__(self, engine: SteppedEngine, mode: Mode, settings: Settings) -> None:
        self._engine = engine
        self._settings = settings
        self._live = mode is Mode.STREAMING
        self._config = RecognitionConfig(
            mode=mode,
            interim_results=self._live,
            voice_activity_events=True,
        )

    def recognise(self, reference: Reference) -> Output:
        """Raises OSError, InvalidAudio; StreamTooLong beyond `stream.max_stream_s`; EngineFailure."""
        waveform = read_waveform(reference, self._settings)
        audio_s = len(waveform) / SAMPLE_RATE_HZ
        message = round((MESSAGE_S if self._live else self._settings.stream.block_s) * SAMPLE_RATE_HZ)
        engine, clock = self._engine, VirtualClock()
        log = StreamLog()
        session = Session(
            engine,
            self._config,
            decoder=None,
            wake=lambda: None,
            settings=self._settings.stream,
            endpointing=self._settings.endpointing,
        )
        try:
            for start in range(0, len(waveform) + message, message):
                block = waveform[start : start + message]
                arrived_s = min(start + message, len(waveform)) / SAMPLE_RATE_HZ
                begun = time.perf_counter()
                if len(block):
                    session.feed(block)
                else:
                    session.finish()
                engine.settle()
                session.collect()
                shown_s = clock.work(arrived_s, time.perf_counter() - begun)
                while (update := session.take()) is not None:
                    _note(log, update, shown_s, arrived_s)
            if session.error is not None:
                raise session.error
        finally:
            session.close()
            engine.settle()  # takes the slot back
        return log.output(reference.utterance_id, processing_s=clock.computed_s, audio_s=audio_s, timed=self._live)


def _note(log: StreamLog, update: StreamUpdate, aware_s: float, unaware_s: float) -> None:
    if update.event is not None:
        log.event(update.event)
    elif update.interim_of is not None:
        text = " ".join(result.alternatives[0].text for result in update.results)
        log.display.interim(update.interim_of, text, aware_s, unaware_s)
    else:
        (final,) = update.results
        log.display.final(final.utterance_index, final.alternatives[0].words, aware_s, unaware_s)
