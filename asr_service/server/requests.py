"""Protobuf requests to our types. What is not in range is refused here, by the name of its field."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator
from typing import Literal

from google.protobuf.duration_pb2 import Duration

from asr_service.config import EndpointingSettings, EngineSettings, Settings
from asr_service.engine.interface import EngineInfo
from asr_service.errors import AsrError, InvalidField, ModelNotFound, NoConfig, Unsupported
from asr_service.generated.asr.v1 import speech_pb2 as pb
from asr_service.streaming.phrase_hints import phrase_hints
from asr_service.types import AudioEncoding, AudioFormat, EndpointingConfig, Mode, RecognitionConfig

ENCODINGS: dict[int, AudioEncoding] = {
    pb.RecognitionConfig.ENCODING_UNSPECIFIED: AudioEncoding.UNSPECIFIED,
    pb.RecognitionConfig.LINEAR16: AudioEncoding.LINEAR16,
    pb.RecognitionConfig.FLOAT32: AudioEncoding.FLOAT32,
    pb.RecognitionConfig.MULAW: AudioEncoding.MULAW,
    pb.RecognitionConfig.ALAW: AudioEncoding.ALAW,
    pb.RecognitionConfig.WAV: AudioEncoding.WAV,
    pb.RecognitionConfig.FLAC: AudioEncoding.FLAC,
    pb.RecognitionConfig.OGG_OPUS: AudioEncoding.OGG_OPUS,
    pb.RecognitionConfig.MP3: AudioEncoding.MP3,
}
MODES: dict[int, Mode] = {pb.RecognitionConfig.STREAMING: Mode.STREAMING, pb.RecognitionConfig.ACCURATE: Mode.ACCURATE}

# Options that need a feature of the model: field, then the feature's name in GetServerInfo.
FEATURES = (
    ("enable_word_time_offsets", "word_time_offsets"),
    ("enable_word_confidence", "word_confidence"),
    ("enable_automatic_punctuation", "automatic_punctuation"),
    ("enable_speaker_diarization", "speaker_diarization"),
    ("phrase_hints", "phrase_hints"),
)

MAX_LANGUAGE_CODE = 35
MAX_VOICE_TIMEOUT_S = 600.0
MIN_VOICE_TIMEOUT_S = 0.1
MAX_NANOS = 999_999_999  # of a google.protobuf.Duration
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*")
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def unary_config(request: pb.RecognizeRequest, info: EngineInfo, settings: Settings) -> RecognitionConfig:
    """Check a unary request's config. Raises NoConfig, InvalidField, ModelNotFound, Unsupported."""
    if not request.HasField("config"):
        raise NoConfig("the request has no config", field="config")
    return _recognition_config(request.config, info, settings, default_mode=Mode.ACCURATE)


def streaming_config(
    streaming: pb.StreamingRecognitionConfig, info: EngineInfo, settings: Settings
) -> RecognitionConfig:
    """Check a stream's first message. Raises NoConfig, InvalidField, ModelNotFound, Unsupported."""
    if not streaming.HasField("config"):
        raise NoConfig("streaming_config has no config", field="streaming_config.config")
    base = _recognition_config(streaming.config, info, settings, default_mode=Mode.STREAMING)
    if streaming.interim_results and base.mode is Mode.ACCURATE:
        name = "streaming_config.interim_results"
        raise Unsupported(f"{name}: there are no interim results in mode ACCURATE", field=name)
    timeout = streaming.voice_activity_timeout
    return dataclasses.replace(
        base,
        interim_results=streaming.interim_results,
        single_utterance=streaming.single_utterance,
        voice_activity_events=streaming.enable_voice_activity_events,
        speech_start_timeout_s=_voice_timeout(timeout, "speech_start_timeout"),
        speech_end_timeout_s=_voice_timeout(timeout, "speech_end_timeout"),
        endpointing=_endpointing(streaming.endpointing, base.mode, settings),
    )


@contextlib.contextmanager
def streaming_paths() -> Iterator[None]:
    """Here errors name fields by their path in StreamingRecognizeRequest, where `config` is one level further down.

    What checks a config or the audio against it serves both calls, and names fields as in RecognizeRequest. Messages
    about a field begin with its path.
    """
    try:
        yield
    except AsrError as error:
        if not error.field.startswith("config."):
            raise
        root = "streaming_config."
        raise type(error)(f"{root}{error.message}", field=f"{root}{error.field}") from error


def _recognition_config(
    config: pb.RecognitionConfig, info: EngineInfo, settings: Settings, *, default_mode: Mode
) -> RecognitionConfig:
    if config.encoding not in ENCODINGS:
        raise _invalid("config.encoding", config.encoding, "an AudioEncoding of this API")
    if config.audio_channel < 0:
        raise _invalid("config.audio_channel", config.audio_channel, "0 for all channels, or a channel counted from 1")
    most = EngineSettings.MAX_ALTERNATIVES
    if not 0 <= config.max_alternatives <= most:
        raise _invalid("config.max_alternatives", config.max_alternatives, f"0 to {most}")
    for name, feature in FEATURES:
        if getattr(config, name) and feature not in info.features:
            raise Unsupported(f"config.{name}: model {info.model} does not offer {feature}", field=f"config.{name}")
    _check_language(config.language_code, info)
    return RecognitionConfig(
        audio=AudioFormat(ENCODINGS[config.encoding], config.sample_rate_hertz, config.audio_channel_count),
        channel=config.audio_channel - 1 if config.audio_channel else None,
        mode=_mode(config.mode, info, default_mode),
        model=_model(config.model, info),
        max_alternatives=max(1, config.max_alternatives),
        word_time_offsets=config.enable_word_time_offsets,
        word_confidence=config.enable_word_confidence,
        phrase_hints=phrase_hints(config.phrase_hints, settings.phrase_hints),
    )


def _mode(value: int, info: EngineInfo, default: Mode) -> Mode:
    if value == pb.RecognitionConfig.MODE_UNSPECIFIED:
        mode = default
    elif value in MODES:
        mode = MODES[value]
    else:
        raise _invalid("config.mode", value, "a Mode of this API")
    if mode not in info.modes:
        raise Unsupported(f"config.mode: model {info.model} does not offer {mode.name}", field="config.mode")
    return mode


def _model(name: str, info: EngineInfo) -> str:
    if not name:
        return info.model
    if not _MODEL.fullmatch(name):
        raise _invalid("config.model", _shown(name), "1 to 64 letters, digits, '.', '_' or '-'")
    if name != info.model:
        raise ModelNotFound(f"config.model is {name!r}; this server has {info.model!r}", field="config.model")
    return name


def _check_language(code: str, info: EngineInfo) -> None:
    if not code:
        return
    field = "config.language_code"
    if len(code) > MAX_LANGUAGE_CODE or not _LANGUAGE.fullmatch(code):
        raise _invalid(field, _shown(code), f"a BCP-47 tag of at most {MAX_LANGUAGE_CODE} characters")
    known = {_primary_subtag(language) for language in info.languages}
    if _primary_subtag(code) not in known:
        raise _invalid(field, _shown(code), f"a language of the model: {', '.join(info.languages)}")


def _primary_subtag(code: str) -> str:
    return code.partition("-")[0].lower()


def _voice_timeout(
    timeout: pb.StreamingRecognitionConfig.VoiceActivityTimeout,
    name: Literal["speech_start_timeout", "speech_end_timeout"],
) -> float | None:
    if not timeout.HasField(name):
        return None
    field = f"streaming_config.voice_activity_timeout.{name}"
    return _seconds(getattr(timeout, name), field, MIN_VOICE_TIMEOUT_S, MAX_VOICE_TIMEOUT_S)


def _endpointing(
    wanted: pb.StreamingRecognitionConfig.Endpointing, mode: Mode, settings: Settings
) -> EndpointingConfig:
    field, limits = "streaming_config.endpointing", EndpointingSettings
    default = settings.endpointing.default(mode)
    silence_s, longest_s = default.min_trailing_silence_s, default.max_utterance_s
    if wanted.HasField("min_trailing_silence"):
        low, high = limits.MIN_TRAILING_SILENCE_S, limits.MAX_TRAILING_SILENCE_S
        silence_s = _seconds(wanted.min_trailing_silence, f"{field}.min_trailing_silence", low, high)
    if wanted.HasField("max_utterance"):
        low, high = limits.MIN_UTTERANCE_S, settings.engine.max_utterance_s
        longest_s = _seconds(wanted.max_utterance, f"{field}.max_utterance", low, high)
    return EndpointingConfig(silence_s, longest_s)


def _seconds(duration: Duration, field: str, low: float, high: float) -> float:
    if abs(duration.nanos) > MAX_NANOS or duration.seconds * duration.nanos < 0:  # of one sign, as Duration says
        raise _invalid(f"{field}.nanos", duration.nanos, f"0 to {MAX_NANOS:,}")
    seconds = duration.seconds + duration.nanos * 1e-9
    if not low <= seconds <= high:
        raise _invalid(field, f"{seconds:.9g} s", f"{low:g} s to {high:g} s")
    return seconds


def _invalid(field: str, value: object, rule: str) -> InvalidField:
    return InvalidField(f"{field} is {value}; it must be {rule}", field=field)


def _shown(text: str) -> str:
    """Client text for a message: bounded, and escaped so that it cannot forge lines."""
    return ascii(text if len(text) <= 64 else text[:64] + "...")
