"""One exception tree; each leaf has one gRPC status (by name) and one stable reason.

A reason never changes once released: clients branch on it (`google.rpc.ErrorInfo.reason`). The message is for people
and names the field or file and the limit. `field` goes into `google.rpc.BadRequest`. No grpc here: the server maps
`status` by name.
"""

from __future__ import annotations

from typing import ClassVar


class AsrError(Exception):
    """Base of everything this package raises on purpose."""

    status: ClassVar[str] = "INTERNAL"
    reason: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.field = field


class InvalidRequest(AsrError):
    """The request breaks a rule that the client can read in the API reference."""

    status = "INVALID_ARGUMENT"
    reason = "INVALID_REQUEST"


class NoConfig(InvalidRequest):
    reason = "NO_CONFIG"


class ConfigExpected(InvalidRequest):
    reason = "CONFIG_EXPECTED"


class ConfigRepeated(InvalidRequest):
    reason = "CONFIG_REPEATED"


class EmptyMessage(InvalidRequest):
    reason = "EMPTY_MESSAGE"


class InvalidField(InvalidRequest):
    """A field's value is outside its documented range."""

    reason = "INVALID_FIELD"


class ChunkTooLarge(InvalidRequest):
    reason = "CHUNK_TOO_LARGE"


class InvalidAudio(InvalidRequest):
    """The bytes are not the audio they are said to be."""

    reason = "INVALID_AUDIO"


class EncodingUnknown(InvalidAudio):
    reason = "ENCODING_UNKNOWN"


class RateMismatch(InvalidAudio):
    reason = "RATE_MISMATCH"


class ChannelMismatch(InvalidAudio):
    reason = "CHANNEL_MISMATCH"


class NonFiniteSamples(InvalidAudio):
    reason = "NON_FINITE_SAMPLES"


class AudioTooLong(InvalidAudio):
    reason = "AUDIO_TOO_LONG"


class Unsupported(AsrError):
    """The API knows the option; this server or model does not offer it."""

    status = "UNIMPLEMENTED"
    reason = "UNSUPPORTED"


class ModelNotFound(AsrError):
    status = "NOT_FOUND"
    reason = "MODEL_NOT_FOUND"


class LimitReached(AsrError):
    """A stream came to a documented end of what one stream may be."""

    status = "OUT_OF_RANGE"
    reason = "LIMIT_REACHED"


class StreamTooLong(LimitReached):
    reason = "STREAM_TOO_LONG"


class StreamIdle(LimitReached):
    reason = "STREAM_IDLE"


class ResourceExhausted(AsrError):
    """Refused so that the streams already running keep their latency."""

    status = "RESOURCE_EXHAUSTED"
    reason = "RESOURCE_EXHAUSTED"


class NoCapacity(ResourceExhausted):
    reason = "NO_CAPACITY"


class SlowConsumer(ResourceExhausted):
    reason = "SLOW_CONSUMER"


class TooManyMessages(ResourceExhausted):
    reason = "TOO_MANY_MESSAGES"


class Unavailable(AsrError):
    status = "UNAVAILABLE"
    reason = "UNAVAILABLE"


class ShuttingDown(Unavailable):
    reason = "SHUTTING_DOWN"


class InternalError(AsrError):
    """A mistake of ours, an exception that nobody meant to raise: the server's log has it."""

    status = "INTERNAL"
    reason = "INTERNAL"


class EngineFailure(AsrError):
    """The model failed on this stream; the others go on."""

    status = "INTERNAL"
    reason = "ENGINE_FAILURE"


class MalformedMessage(AsrError):
    """Bytes that are not the protobuf message they should be."""

    status = "INTERNAL"  # what gRPC's own deserialisers answer
    reason = "MALFORMED_MESSAGE"


class BundleError(AsrError):
    """A model directory lacks a file, or a file in it is not what it should be."""

    status = "FAILED_PRECONDITION"
    reason = "INVALID_BUNDLE"


class ConfigError(AsrError):
    """A settings file or a setting in it is wrong."""

    status = "FAILED_PRECONDITION"
    reason = "INVALID_SETTINGS"
