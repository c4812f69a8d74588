"""A bundle under test gives the words of a server, in process and through one, however the work is spread."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr_service.client import Client
from asr_service.config import EngineSettings, Settings
from asr_service.connection import Connection
from asr_service.engine.engine import BatchingEngine
from asr_service.errors import BundleError, ConfigError, InvalidAudio
from asr_service.evaluation.by_server import ServerSystem
from asr_service.evaluation.in_process import BundleSystem
from asr_service.evaluation.output import Output
from asr_service.evaluation.reference import Reference
from asr_service.evaluation.run import Failure, in_order, one_by_one, run
from asr_service.evaluation.shards import over_processes
from asr_service.evaluation.waveform import read_waveform
from asr_service.generated.asr.v1 import speech_pb2 as pb
from asr_service.model.bundle import LM_FILE, load_bundle
from asr_service.model.digest import bundle_digest
from asr_service.streaming.transcribe import transcribe_bytes
from asr_service.types import Mode, RecognitionConfig
from tests.engine.conftest import make_tiny_bundle

RATE_HZ = 16_000
MODES = pytest.mark.parametrize("mode", [Mode.ACCURATE, Mode.STREAMING], ids=lambda mode: mode.value)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[Reference]:
    """Bursts of noise with pauses between them, of different lengths: several utterances in a file."""
    folder, rng = tmp_path_factory.mktemp("audio"), np.random.default_rng(3)
    found = []
    for number, parts in enumerate([(1.7,), (1.1, 1.3, 2.05), (0.9, 1.2, 0.7, 1.0, 1.03)]):
        pieces = [
            rng.normal(0, 0.1 if place % 2 == 0 else 1e-4, round(seconds * RATE_HZ))
            for place, seconds in enumerate(parts)
        ]
        path = folder / f"{number}.wav"
        soundfile.write(path, np.concatenate(pieces).astype(np.float32), RATE_HZ, subtype="FLOAT")
        found.append(Reference(f"rec-{number}", "", path))
    return found


def texts(outputs: list[Output]) -> list[str]:
    return [output.text for output in outputs]


def recognised(references: list[Reference], system: BundleSystem | ServerSystem) -> list[Output]:
    outputs, failures = in_order(references, one_by_one(system, references))
    assert not failures
    return outputs


@MODES
def test_the_words_are_those_of_the_engine_with_its_thread(
    mode: Mode, bundle_dir: Path, recordings: list[Reference]
) -> None:
    settings = Settings()
    engine = BatchingEngine(load_bundle(bundle_dir), settings.engine)
    engine.start()
    try:
        expected = [
            tuple(
                word
                for final in transcribe_bytes(engine, [reference.audio_path.read_bytes()], RecognitionConfig(mode=mode))
                for word in final.alternatives[0].words
            )
            for reference in recordings
            if reference.audio_path
        ]
    finally:
        engine.stop()
    outputs = recognised(recordings, BundleSystem(mode, bundle_dir))
    assert [[(word.text, word.start_s, word.end_s) for word in output.words] for output in outputs] == [
        [(word.text, word.start_s, word.end_s) for word in words] for words in expected
    ]
    # The engine ranks the hypotheses in parts, and a product's last bits go with the number of its rows.
    confidences = [[word.confidence for word in output.words] for output in outputs]
    assert confidences == [[pytest.approx(word.confidence, abs=1e-6) for word in words] for words in expected]
    assert all(output.text for output in outputs)


def test_a_server_tells_the_same_model_hash_as_the_bundle_that_it_loaded(bundle_dir: Path, server: str) -> None:
    here, there = BundleSystem(Mode.ACCURATE, bundle_dir).identity(), ServerSystem(Connection(server)).identity()
    assert there["model_hash"] == here["model_hash"] == f"sha256:{bundle_digest(bundle_dir)}"


def test_a_server_that_does_not_tell_its_weights_has_no_model_hash(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        Client, "server_info", lambda _, **__: pb.GetServerInfoResponse(models=[pb.Model(name="older")])
    )
    identity = ServerSystem(Connection(server)).identity()
    assert identity["model"] == "older" and "model_hash" not in identity


@MODES
def test_the_words_through_a_server_are_those_in_process(
    mode: Mode, bundle_dir: Path, recordings: list[Reference], server: str
) -> None:
    here = recognised(recordings, BundleSystem(mode, bundle_dir))
    there = recognised(recordings, ServerSystem(Connection(server), mode))
    assert texts(there) == texts(here)
    for near, far in zip(here, there, strict=True):
        times = [(word.start_s, word.end_s) for word in far.words]
        assert times == [pytest.approx((word.start_s, word.end_s), abs=1e-3) for word in near.words]
        assert near.timing is not None and far.timing is not None
        assert far.timing.uncovered_s == pytest.approx(near.timing.uncovered_s, abs=1e-3)
        assert far.timing.word_latencies_s == ()
        assert far.timing.processing_s is not None and far.timing.processing_s > 0


def test_at_a_microphones_pace_a_server_has_latencies_by_the_wall_clock(
    recordings: list[Reference], server: str
) -> None:
    (output,) = recognised(recordings[:1], ServerSystem(Connection(server), Mode.STREAMING, real_time=True))
    timing = output.timing
    assert timing is not None and timing.processing_s is None and timing.audio_s == pytest.approx(1.7)
    assert timing.final_s is not None and timing.final_s >= 0
    assert len(timing.word_latencies_s) == len(output.words) > 0
    assert timing.unaware_word_latencies_s == () and timing.unaware_final_s is None


def test_in_process_the_clock_is_virtual_and_computation_only_adds(
    bundle_dir: Path, recordings: list[Reference]
) -> None:
    for output in recognised(recordings, BundleSystem(Mode.STREAMING, bundle_dir)):
        timing = output.timing
        assert timing is not None and timing.processing_s is not None and timing.processing_s > 0
        assert timing.audio_s is not None and output.words[-1].end_s <= timing.audio_s
        assert len(timing.word_latencies_s) == len(timing.unaware_word_latencies_s) == len(output.words)
        pairs = zip(timing.word_latencies_s, timing.unaware_word_latencies_s, strict=True)
        assert all(aware_s > unaware_s for aware_s, unaware_s in pairs)
        assert timing.final_s is not None and timing.unaware_final_s is not None
        assert timing.final_s > timing.unaware_final_s
        assert timing.emitted_words - timing.revoked_words == len(output.words)


def test_what_a_machine_that_computes_in_no_time_would_show_depends_on_the_audio_alone(
    bundle_dir: Path, recordings: list[Reference]
) -> None:
    first, second = (recognised(recordings, BundleSystem(Mode.STREAMING, bundle_dir)) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert one.words == other.words and one.timing is not None and other.timing is not None
        for name in ("unaware_word_latencies_s", "unaware_first_partial_s", "unaware_final_s", "revoked_words"):
            assert getattr(one.timing, name) == getattr(other.timing, name)


def test_accurate_mode_has_processing_time_and_no_latencies(bundle_dir: Path, recordings: list[Reference]) -> None:
    (output,) = recognised(recordings[:1], BundleSystem(Mode.ACCURATE, bundle_dir))
    assert output.timing is not None and output.timing.processing_s
    assert output.timing.final_s is output.timing.first_partial_s is None
    assert output.timing.word_latencies_s == ()


@pytest.mark.slow
def test_a_bundle_in_two_processes_gives_the_words_of_one(bundle_dir: Path, recordings: list[Reference]) -> None:
    system = BundleSystem(Mode.STREAMING, bundle_dir)
    spread, failures = in_order(recordings, run(recordings, system, spread=over_processes(2)))
    assert not failures
    assert [output.words for output in spread] == [output.words for output in recognised(recordings, system)]


def test_recordings_that_cannot_be_recognised_fail_alone(
    bundle_dir: Path, recordings: list[Reference], tmp_path: Path
) -> None:
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_text("Dear Sir or Madam, " * 100)
    bad = [
        Reference("missing", "", tmp_path / "missing.wav"),
        Reference("empty", "", tmp_path / "empty.wav"),
        Reference("text", "", tmp_path / "text.wav"),
        Reference("nothing", ""),
        Reference("behind", "", recordings[0].audio_path, offset_s=5.0),
    ]
    results = list(one_by_one(BundleSystem(Mode.ACCURATE, bundle_dir), [*bad, recordings[0]]))
    assert [type(result) for result in results] == [Failure] * len(bad) + [Output]
    assert all(result.message for result in results if isinstance(result, Failure))


def test_a_recording_longer_than_a_stream_may_be_fails(bundle_dir: Path, recordings: list[Reference]) -> None:
    settings = Settings()
    settings = dataclasses.replace(settings, stream=dataclasses.replace(settings.stream, max_stream_s=2.0))
    system = BundleSystem(Mode.STREAMING, bundle_dir, settings=settings)
    short, long, again = one_by_one(system, [recordings[0], recordings[1], recordings[0]])
    assert isinstance(long, Failure) and "longer than 2 s" in long.message
    assert isinstance(short, Output) and isinstance(again, Output) and short.words == again.words


def test_a_part_of_a_recording_is_that_part_and_a_rounded_duration_is_the_whole(recordings: list[Reference]) -> None:
    whole = read_waveform(recordings[1], Settings())
    part = dataclasses.replace(recordings[1], offset_s=1.0, duration_s=0.5)
    np.testing.assert_array_equal(read_waveform(part, Settings()), whole[RATE_HZ : RATE_HZ * 3 // 2])
    rest = dataclasses.replace(recordings[1], offset_s=1.0)
    np.testing.assert_array_equal(read_waveform(rest, Settings()), whole[RATE_HZ:])
    for duration_s in (4.4, 4.45, 4.5, 5.4):
        rounded = dataclasses.replace(recordings[1], duration_s=duration_s)
        assert len(read_waveform(rounded, Settings())) == len(whole)
    with pytest.raises(InvalidAudio, match="behind the recording's end"):
        read_waveform(dataclasses.replace(recordings[1], offset_s=4.45), Settings())


@pytest.mark.parametrize(("offset_s", "duration_s"), [(0.0, 5.6), (3.0, 2.6)])
def test_a_recording_that_was_cut_off_is_not_scored_as_if_it_were_whole(
    recordings: list[Reference], offset_s: float, duration_s: float
) -> None:
    cut_off = dataclasses.replace(recordings[1], offset_s=offset_s, duration_s=duration_s)
    with pytest.raises(InvalidAudio, match=r"the recording ends at 4\.4\d* s, the manifest has 5\.6 s of it"):
        read_waveform(cut_off, Settings())


@pytest.mark.parametrize("with_lm", [True, False])
def test_of_a_bundle_without_an_n_gram_no_language_model_is_told(
    bundle_dir: Path, tmp_path: Path, with_lm: bool
) -> None:
    folder = shutil.copytree(bundle_dir, tmp_path / "bare")
    (folder / LM_FILE).unlink()
    identity = BundleSystem(Mode.ACCURATE, folder, with_lm).identity()
    assert identity["language_model"] == "none (the bundle has no n-gram)"
    assert BundleSystem(Mode.ACCURATE, bundle_dir).identity()["language_model"] == "the bundle's"


def test_without_the_language_model_and_with_other_chunks_it_is_another_system(bundle_dir: Path) -> None:
    plain = BundleSystem(Mode.STREAMING, bundle_dir)
    others = [
        dataclasses.replace(plain, with_lm=False),
        dataclasses.replace(plain, chunk_frames=8),
        dataclasses.replace(plain, mode=Mode.ACCURATE),
    ]
    assert len({tuple(system.identity().items()) for system in [plain, *others]}) == 4
    assert others[0].load().lm_path is None and plain.load().lm_path is not None
    assert others[1].load().streaming.chunk_frames == 8
    with pytest.raises(ConfigError, match="chunk_frames is 7"):
        dataclasses.replace(plain, chunk_frames=7).load()


def test_shorter_chunks_show_words_sooner(bundle_dir: Path, recordings: list[Reference]) -> None:
    def unaware(chunk_frames: int) -> float:
        (output,) = recognised(recordings[:1], BundleSystem(Mode.STREAMING, bundle_dir, chunk_frames=chunk_frames))
        assert output.timing is not None and output.timing.unaware_first_partial_s is not None
        return output.timing.unaware_first_partial_s + output.words[0].start_s

    assert unaware(4) < unaware(24)


def test_the_latency_of_the_settings_is_the_bundles_and_a_chunk_length_goes_before_it(
    tmp_path: Path, recordings: list[Reference]
) -> None:
    folder = make_tiny_bundle(tmp_path / "tiny")
    config = json.loads((folder / "config.json").read_text())
    config["dial"] = {"low": {"streaming": {"chunk_frames": 4}}}
    (folder / "config.json").write_text(json.dumps(config))
    low = dataclasses.replace(Settings(), engine=EngineSettings(latency="low"))
    balanced, quick = (BundleSystem(Mode.STREAMING, folder, settings=settings) for settings in (Settings(), low))
    assert balanced.load().streaming.chunk_frames == 16 and quick.load().streaming.chunk_frames == 4
    assert balanced.identity() != quick.identity()
    longer = dataclasses.replace(quick, chunk_frames=24)
    assert longer.load().streaming.chunk_frames == 24
    with longer.open() as recogniser:
        assert recogniser.recognise(recordings[0]).timing is not None
        assert recogniser._engine.info.chunk_s == pytest.approx(24 * 0.04)


def test_the_digest_of_a_bundle_is_of_its_files_and_not_of_its_card(tmp_path: Path) -> None:
    folder = make_tiny_bundle(tmp_path / "tiny")
    before = bundle_digest(folder)
    (folder / "README.md").write_text("a card")
    assert bundle_digest(folder) == before
    with (folder / "tokenizer.json").open("a") as file:
        file.write("\n")
    assert bundle_digest(folder) != before


def test_a_system_that_is_not_there_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such directory"):
        list(one_by_one(BundleSystem(model_dir=tmp_path / "none"), []))
    with pytest.raises(Exception, match=r"connect|unavailable|refused"):
        list(one_by_one(ServerSystem(Connection("localhost:1")), []))
