"""Settings: defaults hold together, and what is wrong in a file is named."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from asr_service.config import AudioSettings, Settings, StreamSettings, load_settings, settings_from_tables
from asr_service.errors import ConfigError
from asr_service.streaming.audio_limits import MARGIN_S, stream_limits


def test_no_file_gives_the_defaults() -> None:
    assert load_settings(None) == Settings()


def test_file_changes_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "asr.toml"
    path.write_text('[server]\naddress = "0.0.0.0:7000"\n[stream]\nidle_timeout_s = 5\n')
    settings = load_settings(path)
    assert settings.server.address == "0.0.0.0:7000"
    assert settings.stream.idle_timeout_s == 5.0
    assert settings.engine == Settings().engine


@pytest.mark.parametrize(
    ("tables", "named"),
    [
        ({"sever": {}}, "sever"),
        ({"server": 3}, "server"),
        ({"server": {"adress": "localhost:1"}}, "server.adress"),
        ({"server": {"address": "localhost"}}, "server.address"),
        ({"server": {"address": "localhost:65536"}}, "server.address"),
        ({"server": {"log_level": "loud"}}, "server.log_level"),
        ({"server": {"worker_restart_s": 5.0, "worker_restart_most_s": 4.9}}, "server.worker_restart_most_s"),
        ({"server": {"reflection": 1}}, "server.reflection"),
        ({"server": {"max_chunk_bytes": 1 << 40}}, "server.max_chunk_bytes"),
        ({"stream": {"idle_timeout_s": float("nan")}}, "stream.idle_timeout_s"),
        ({"stream": {"idle_timeout_s": True}}, "stream.idle_timeout_s"),
        ({"stream": {"max_buffered_s": 0.1}}, "stream.max_buffered_s"),
        ({"stream": {"idle_timeout_s": 5.0, "idle_min_audio_s": 5.1}}, "stream.idle_min_audio_s"),
        ({"stream": {"max_pending_updates": 1}}, "stream.max_pending_updates"),
        ({"engine": {"max_streams": 0}}, "engine.max_streams"),
        ({"engine": {"max_streams": 2.5}}, "engine.max_streams"),
        ({"engine": {"precision": "fp8"}}, "engine.precision"),
        ({"engine": {"latency": "none"}}, "engine.latency"),
        ({"engine": {"policy": "eager"}}, "engine.policy"),
        ({"endpointing": {"max_utterance_s": 60.0}}, "endpointing.max_utterance_s"),
    ],
)
def test_wrong_setting_is_named(tables: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named) as caught:
        settings_from_tables(tables)
    assert caught.value.field == named


def test_a_limit_is_named_to_its_last_digit() -> None:
    with pytest.raises(ConfigError) as caught:
        settings_from_tables({"server": {"max_chunk_bytes": 13_000_000}})
    assert caught.value.message == "setting server.max_chunk_bytes is 13000000, must be 1024 to 12582912"


@pytest.mark.parametrize(("block_s", "least_s"), [(0.02, 0.22), (0.04, 0.24), (0.05, 0.25), (1.0, 4.0)])
def test_what_may_be_buffered_is_a_block_and_what_the_front_end_waits_for(block_s: float, least_s: float) -> None:
    assert StreamSettings(block_s=block_s, max_buffered_s=least_s).max_buffered_s == least_s
    with pytest.raises(ConfigError) as caught:
        StreamSettings(block_s=block_s, max_buffered_s=least_s - 0.001)
    assert caught.value.field == "stream.max_buffered_s"
    assert f"must be {least_s:g} to 600, as stream.block_s is {block_s:g}" in caught.value.message


def test_each_setting_of_the_audio_bounds_the_decoders_by_its_own_name() -> None:
    audio = AudioSettings(max_header_bytes=9000, max_metadata_bytes=2, max_riff_chunks=3, max_packet_bytes=5000)
    limits = stream_limits(audio, StreamSettings(max_stream_s=50.0))
    assert dataclasses.asdict(limits) == dataclasses.asdict(audio) | {"max_duration_s": 50.0 + MARGIN_S}


@pytest.mark.parametrize("content", [b"[server", b"\xff\xfe", None])
def test_unreadable_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "asr.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=str(path)):
        load_settings(path)


def test_an_utterance_longer_than_the_engines_longest_is_told_of_that_setting() -> None:
    with pytest.raises(ConfigError, match=r"must be at most engine\.max_utterance_s, 30"):
        settings_from_tables({"endpointing": {"max_utterance_s": 60.0}})
    settings = settings_from_tables({"endpointing": {"max_utterance_s": 60.0}, "engine": {"max_utterance_s": 60.0}})
    assert settings.endpointing.max_utterance_s == 60.0
