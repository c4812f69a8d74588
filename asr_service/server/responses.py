"""Our types to protobuf responses."""

from __future__ import annotations

from importlib import metadata

from google.protobuf.duration_pb2 import Duration

from asr_service.audio import MAX_CHANNELS, MAX_SOURCE_RATE_HZ, MIN_SOURCE_RATE_HZ
from asr_service.config import EngineSettings, Settings
from asr_service.engine.interface import EngineInfo
from asr_service.generated.asr.v1 import speech_pb2 as pb
from asr_service.server.requests import ENCODINGS, MODES
from asr_service.streaming.updates import StreamUpdate
from asr_service.types import (
    AudioEncoding,
    Hypothesis,
    Mode,
    RecognitionConfig,
    RecognitionResult,
    SpeechEventKind,
)

EVENTS: dict[SpeechEventKind, pb.SpeechEvent.Type] = {
    SpeechEventKind.END_OF_SINGLE_UTTERANCE: pb.SpeechEvent.END_OF_SINGLE_UTTERANCE,
    SpeechEventKind.SPEECH_ACTIVITY_BEGIN: pb.SpeechEvent.SPEECH_ACTIVITY_BEGIN,
    SpeechEventKind.SPEECH_ACTIVITY_END: pb.SpeechEvent.SPEECH_ACTIVITY_END,
    SpeechEventKind.SPEECH_ACTIVITY_TIMEOUT: pb.SpeechEvent.SPEECH_ACTIVITY_TIMEOUT,
}
ENCODING_NAMES = {encoding: pb.RecognitionConfig.AudioEncoding.Name(n) for n, encoding in ENCODINGS.items()}
MODE_NAMES = {mode: pb.RecognitionConfig.Mode.Name(n) for n, mode in MODES.items()}


def version() -> str:
    """Version of the installed package; "unknown" when the code runs from a folder that is not installed."""
    try:
        return metadata.version("asr-service")
    except metadata.PackageNotFoundError:
        return "unknown"


def duration(seconds: float) -> Duration:
    """Whole milliseconds: the engine's times are multiples of frames, and float noise is no information."""
    made = Duration()
    made.FromMilliseconds(round(seconds * 1000))
    return made


def streaming_response(
    update: StreamUpdate, config: RecognitionConfig, request_id: str
) -> pb.StreamingRecognizeResponse:
    response = pb.StreamingRecognizeResponse(audio_received=duration(update.audio_received_s), request_id=request_id)
    if update.event is not None:
        response.speech_event.type = EVENTS[update.event.kind]
        response.speech_event.time.CopyFrom(duration(update.event.time_s))
    for position, result in enumerate(update.results):
        # The first text of the stream has no space before it; all others do, so that texts can be concatenated.
        is_first = result.utterance_index == 0 and position == 0
        response.results.append(
            pb.StreamingRecognitionResult(
                alternatives=_alternatives(result, config, is_first=is_first),
                is_final=result.is_final,
                stability=result.stability,
                result_start_time=duration(result.start_s),
                result_end_time=duration(result.end_s),
                utterance_index=result.utterance_index,
            )
        )
    return response


def unary_response(
    finals: list[RecognitionResult], config: RecognitionConfig, *, audio_s: float, request_id: str
) -> pb.RecognizeResponse:
    results = [
        pb.SpeechRecognitionResult(
            alternatives=_alternatives(final, config, is_first=final.utterance_index == 0),
            result_start_time=duration(final.start_s),
            result_end_time=duration(final.end_s),
            utterance_index=final.utterance_index,
        )
        for final in finals
    ]
    return pb.RecognizeResponse(results=results, audio_received=duration(audio_s), request_id=request_id)


def server_info(info: EngineInfo, settings: Settings) -> pb.GetServerInfoResponse:
    model = pb.Model(
        name=info.model,
        language_codes=info.languages,
        modes=[MODE_NAMES[mode] for mode in Mode if mode in info.modes],
        features=info.features,
        chunk=duration(info.chunk_s),
        hash=info.model_hash,
    )
    stream = settings.stream
    limits = pb.Limits(
        min_sample_rate_hertz=MIN_SOURCE_RATE_HZ,
        max_sample_rate_hertz=MAX_SOURCE_RATE_HZ,
        max_audio_channel_count=MAX_CHANNELS,
        max_alternatives=EngineSettings.MAX_ALTERNATIVES,
        max_message_bytes=settings.server.max_message_bytes,
        max_chunk_bytes=settings.server.max_chunk_bytes,
        max_unary_audio=duration(stream.max_unary_s),
        max_stream_audio=duration(stream.max_stream_s),
        max_buffered_audio=duration(stream.max_buffered_s),
        idle_timeout=duration(stream.idle_timeout_s),
        max_pending_responses=stream.max_pending_updates,
        slow_consumer_timeout=duration(stream.slow_consumer_s),
        max_streams=info.max_streams,
    )
    encodings = [name for encoding, name in ENCODING_NAMES.items() if encoding is not AudioEncoding.UNSPECIFIED]
    return pb.GetServerInfoResponse(version=version(), models=[model], encodings=encodings, limits=limits)


def _alternatives(
    result: RecognitionResult, config: RecognitionConfig, *, is_first: bool
) -> list[pb.SpeechRecognitionAlternative]:
    return [_alternative(hypothesis, result.is_final, config, is_first) for hypothesis in result.alternatives]


def _alternative(
    hypothesis: Hypothesis, is_final: bool, config: RecognitionConfig, is_first: bool
) -> pb.SpeechRecognitionAlternative:
    space = "" if is_first or not hypothesis.words else " "
    alternative = pb.SpeechRecognitionAlternative(transcript=space + hypothesis.text)
    if is_final:
        alternative.confidence = hypothesis.confidence
        if config.word_time_offsets or config.word_confidence:
            alternative.words.extend(_words(hypothesis, config))
    return alternative


def _words(hypothesis: Hypothesis, config: RecognitionConfig) -> list[pb.Word]:
    words = []
    for word in hypothesis.words:
        made = pb.Word(word=word.text)
        if config.word_time_offsets:
            made.start_time.CopyFrom(duration(word.start_s))
            made.end_time.CopyFrom(duration(word.end_s))
        if config.word_confidence:
            made.confidence = word.confidence
        words.append(made)
    return words
