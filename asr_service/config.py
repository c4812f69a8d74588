"""Settings of the service: every limit of its operation has a number and a default here.

Margins on top of a limit (streaming/audio_limits.py) and ranges of request fields on which no setting depends
(server/requests.py) stand where they are used. Settings are frozen and checked when they are made, so nothing behind
them checks again. A settings file is TOML with one table per class (`[server]`, `[stream]`, `[audio]`, `[endpointing]`,
`[engine]`, `[phrase_hints]`); what it does not name keeps its default, and a name that does not exist is an error
rather than ignored:

    [server]
    address = "0.0.0.0:50051"
    [engine]
    max_streams = 64
"""

from __future__ import annotations

import dataclasses
import tomllib
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asr_service.errors import ConfigError
from asr_service.toml_types import of_type
from asr_service.types import EndpointingConfig, Mode

MIB = 1 << 20
# Of live streams: how soon words come, against how right they are. A bundle says what each is for its model.
LATENCIES = ("low", "balanced", "accurate")
POLICIES = ("auto", "chunked", "windowed")
PRECISIONS = ("auto", "fp32", "bf16")


def _require(condition: bool, name: str, value: object, rule: str) -> None:
    if not condition:
        raise ConfigError(f"setting {name} is {value!r}, must be {rule}", field=name)


def _in_range(settings: Any, name: str, low: float, high: float) -> None:
    """Check that `settings.<name>` lies in [low, high]. NaN does not."""
    value = getattr(settings, name)
    table = type(settings).table
    _require(low <= value <= high, f"{table}.{name}", value, f"{low:.15g} to {high:.15g}")


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """The gRPC server.

    Attributes:
        address: host:port to listen on; port 0 takes a free one.
        share_port: whether other servers may listen on the same port (SO_REUSEPORT): the kernel then shares connections
            out between them. Otherwise a second server is refused, where it would take every other connection.
        max_message_bytes: largest message the transport takes or sends; bounds a unary recording.
        max_chunk_bytes: largest `audio` of one stream message.
        max_config_bytes: largest `streaming_config` message.
        max_streams_per_connection: calls that one HTTP/2 connection may have open; more wait at the client.
        startup_timeout_s: how long a connection may take for its handshake, and then a stream until its first message.
        drain_s: after SIGTERM, how long streams may still go on by themselves before they are ended.
        grace_s: after that, how long ended streams and unary calls may take to deliver their results.
        keepalive_s, keepalive_timeout_s: a connection silent for so long is pinged, and closed where the answer takes
            so long; on a slow uplink it lies behind the audio.
        min_ping_interval_s: clients that ping more often are sent away (GOAWAY, ENHANCE_YOUR_CALM). Above
            30 s it would send our own away, which ping at that interval (client/channel.py).
        retry_after_s: what RetryInfo says when there is no capacity or the model is loading.
        worker_restart_s, worker_restart_most_s: with several workers, how long until one that was killed, or has ended
            with 70 because its engine had failed, is started again: each time twice as long up to the second number,
            and from the first again once one has lived for longer than the second. 0: always at once.
        worker_stop_margin_s: after `drain_s` and `grace_s`, how long until a worker that has not ended is killed.
        reflection: whether clients may ask for the schema (grpcurl and the like).
        log_level: debug, info, warning or error.
    """

    table: typing.ClassVar[str] = "server"

    address: str = "localhost:50051"
    share_port: bool = False
    max_message_bytes: int = 12 * MIB
    max_chunk_bytes: int = 1 * MIB
    max_config_bytes: int = 64 * 1024
    max_streams_per_connection: int = 100
    startup_timeout_s: float = 20.0
    drain_s: float = 2.0
    grace_s: float = 10.0
    keepalive_s: float = 30.0
    keepalive_timeout_s: float = 30.0
    min_ping_interval_s: float = 5.0
    retry_after_s: float = 1.0
    worker_restart_s: float = 1.0
    worker_restart_most_s: float = 60.0
    worker_stop_margin_s: float = 5.0
    reflection: bool = True
    log_level: str = "info"

    def __post_init__(self) -> None:
        host, separator, port = self.address.rpartition(":")
        is_port = port.isascii() and port.isdigit() and int(port) < 65_536
        _require(bool(host and separator) and is_port, "server.address", self.address, "host:port")
        _in_range(self, "max_message_bytes", 64 * 1024, 1024 * MIB)
        _in_range(self, "max_chunk_bytes", 1024, self.max_message_bytes)
        _in_range(self, "max_config_bytes", 1024, self.max_message_bytes)
        _in_range(self, "max_streams_per_connection", 1, 10_000)
        _in_range(self, "startup_timeout_s", 0.1, 600)
        _in_range(self, "drain_s", 0, 3600)
        _in_range(self, "grace_s", 0, 3600)
        _in_range(self, "keepalive_s", 1, 3600)
        _in_range(self, "keepalive_timeout_s", 1, 600)
        _in_range(self, "min_ping_interval_s", 0.01, 3600)
        _in_range(self, "retry_after_s", 0.01, 600)
        _in_range(self, "worker_restart_s", 0, 600)
        _in_range(self, "worker_restart_most_s", self.worker_restart_s, 3600)
        _in_range(self, "worker_stop_margin_s", 0, 600)
        levels = ("debug", "info", "warning", "error")
        _require(self.log_level in levels, "server.log_level", self.log_level, "one of " + ", ".join(levels))


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """What one recognition stream may use.

    Attributes:
        max_stream_s: audio of one stream; then its last finals and STREAM_TOO_LONG. Four hours take a long recording.
        max_unary_s: audio of one unary call, whatever `max_stream_s` is; longer recordings go through a stream.
        max_buffered_s: audio that may wait for the engine; then the client is slowed down.
        block_s: audio goes to the engine in blocks of at most this length.
        idle_timeout_s: a stream ends without `idle_min_audio_s` of audio, or a keep-alive, in this time.
        idle_min_audio_s: less audio than this does not count as a sign of life.
        max_pending_updates: finals and events that may wait for the client; then no more audio is read.
        slow_consumer_s: how long they may wait for a client that reads nothing.
        empty_message_burst, empty_messages_per_s: messages without audio, in a burst and in the long run.
    """

    table: typing.ClassVar[str] = "stream"

    max_stream_s: float = 4 * 3600.0
    max_unary_s: float = 300.0
    max_buffered_s: float = 10.0
    block_s: float = 1.0
    idle_timeout_s: float = 20.0
    idle_min_audio_s: float = 0.1
    max_pending_updates: int = 64
    slow_consumer_s: float = 30.0
    empty_message_burst: int = 10_000
    empty_messages_per_s: float = 100.0

    # Beside a block. The engine's first progress takes 0.102 s of audio: with less room a stream waits for ever.
    MIN_ROOM_S: typing.ClassVar[float] = 0.2

    def __post_init__(self) -> None:
        _in_range(self, "max_stream_s", 1, 7 * 24 * 3600)
        _in_range(self, "max_unary_s", 1, 3600)
        _in_range(self, "block_s", 0.02, 10)
        least = round(max(4 * self.block_s, self.block_s + self.MIN_ROOM_S), 9)  # what the message tells is allowed
        rule = f"{least:.15g} to 600, as stream.block_s is {self.block_s:.15g}"
        _require(least <= self.max_buffered_s <= 600, "stream.max_buffered_s", self.max_buffered_s, rule)
        _in_range(self, "idle_timeout_s", 0.1, 3600)
        _in_range(self, "idle_min_audio_s", 0, self.idle_timeout_s)
        _in_range(self, "max_pending_updates", 2, 10_000)
        _in_range(self, "slow_consumer_s", 0.1, 3600)
        _in_range(self, "empty_message_burst", 1, 1_000_000)
        _in_range(self, "empty_messages_per_s", 0.1, 100_000)


@dataclass(frozen=True, slots=True)
class AudioSettings:
    """What the audio decoders hold and skip (`asr_service.audio.AudioLimits` says more on each).

    Attributes:
        max_header_bytes, max_metadata_bytes, max_riff_chunks, max_packet_bytes: of a container.
    """

    table: typing.ClassVar[str] = "audio"

    max_header_bytes: int = 256 * 1024
    max_metadata_bytes: int = 16 * MIB
    max_riff_chunks: int = 256
    max_packet_bytes: int = 1 * MIB

    def __post_init__(self) -> None:
        _in_range(self, "max_header_bytes", 8 * 1024, 64 * MIB)
        _in_range(self, "max_metadata_bytes", 0, 1024 * MIB)
        _in_range(self, "max_riff_chunks", 3, 1_000_000)
        _in_range(self, "max_packet_bytes", 4 * 1024, 64 * MIB)


@dataclass(frozen=True, slots=True)
class EndpointingSettings:
    """When utterances end, where the client does not say (see streaming/endpointer.py for the rules).

    Attributes:
        min_trailing_silence_s: silence after speech in mode streaming; a client may ask for 0.1 to 10 s. The default is
            nine ticks of voice activity. With the last tick of speech, the message and the final pass a final comes
            0.8 to 1.1 s after speech.
        accurate_trailing_silence_s: the same in mode accurate, where nobody waits for a final: an utterance that is cut
            at a pause loses the words around it.
        max_utterance_s: longest utterance; a client may ask for 1 s up to `engine.max_utterance_s`.
        empty_silence_s: silence that ends an utterance in which nobody has spoken.
        long_utterance_share: from this share of the longest utterance on, `long_utterance_silence_s` of pause ends it.
        wordless_s: no new word for so long after the last ends a live utterance, whatever the voice activity says, but
            not one without any word. It holds the time by which decoding is behind: a chunk and its look-ahead.
    """

    table: typing.ClassVar[str] = "endpointing"

    min_trailing_silence_s: float = 0.72
    accurate_trailing_silence_s: float = 1.0
    max_utterance_s: float = 30.0
    empty_silence_s: float = 5.0
    long_utterance_share: float = 0.7
    long_utterance_silence_s: float = 0.2
    wordless_s: float = 3.0

    MIN_TRAILING_SILENCE_S: typing.ClassVar[float] = 0.1
    MAX_TRAILING_SILENCE_S: typing.ClassVar[float] = 10.0
    MIN_UTTERANCE_S: typing.ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        for name in ("min_trailing_silence_s", "accurate_trailing_silence_s"):
            _in_range(self, name, self.MIN_TRAILING_SILENCE_S, self.MAX_TRAILING_SILENCE_S)
        _in_range(self, "max_utterance_s", self.MIN_UTTERANCE_S, 120)
        _in_range(self, "empty_silence_s", 0.5, 60)
        _in_range(self, "long_utterance_share", 0.1, 1)
        _in_range(self, "long_utterance_silence_s", 0.05, 10)
        _in_range(self, "wordless_s", 2, 60)

    def default(self, mode: Mode) -> EndpointingConfig:
        """For a client that does not say."""
        accurate = mode is Mode.ACCURATE
        silence_s = self.accurate_trailing_silence_s if accurate else self.min_trailing_silence_s
        return EndpointingConfig(silence_s, self.max_utterance_s)


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """The model's thread.

    Attributes:
        max_streams: streams and unary calls served at once; more are refused with NO_CAPACITY.
        precision: of the model's matrix products: `fp32`, `bf16`, or `auto`, bf16 on CPUs that are faster at it.
        threads: threads of one matrix product. One per process is best when several processes share a machine.
        latency: of live streams: `low`, `balanced` or `accurate`. It sets the length of the chunks, how long words are
            held back and how many hypotheses the final pass ranks, together.
        max_utterance_s: longest utterance that a client may ask for; at least `endpointing.max_utterance_s`.
        idle_wait_s: how long the engine's thread sleeps without messages before it looks whether to stop.
        max_turn_s: a turn of the thread that takes longer is stuck: the engine is not healthy, and its process ends. A
            turn takes some 100 ms.
        final_budget_s: computation that a turn of the engine spends on finals of live streams, before it looks for live
            audio again; one part of one is always done.
        accurate_budget_s: the same for accurate utterances (files, unary calls); one part of one is always done.
        accurate_batch_s: audio, with its padding, of accurate utterances that are encoded in one batch, block by block
            of the encoder. A longer utterance is encoded alone.
        policy: of live streams: `chunked` encodes each frame once; `windowed` encodes and decodes a growing window
            again at each step, for encoders that know full context only; `auto` asks the bundle.
        window_s: a longer window (of the policy `windowed`) is cut between committed words.
        window_lag_s: a windowed stream with more audio than this waiting leaves steps out until it has caught up; 0: it
            does them all, so that words do not depend on the load.
        accurate_queue_s: a stream whose accurate utterances wait with this much audio is read no further.
    """

    table: typing.ClassVar[str] = "engine"

    max_streams: int = 32
    threads: int = 1
    precision: str = "auto"
    latency: str = "balanced"
    max_utterance_s: float = 30.0
    idle_wait_s: float = 0.5
    max_turn_s: float = 30.0
    final_budget_s: float = 0.1
    accurate_budget_s: float = 0.05
    accurate_batch_s: float = 40.0
    accurate_queue_s: float = 40.0
    policy: str = "auto"
    window_s: float = 10.0
    window_lag_s: float = 0.0

    MAX_ALTERNATIVES: typing.ClassVar[int] = 30

    def __post_init__(self) -> None:
        _in_range(self, "max_streams", 1, 4096)
        _in_range(self, "threads", 1, 256)
        _require(self.precision in PRECISIONS, "engine.precision", self.precision, "one of " + ", ".join(PRECISIONS))
        _require(self.latency in LATENCIES, "engine.latency", self.latency, "one of " + ", ".join(LATENCIES))
        _in_range(self, "max_utterance_s", 1, 120)
        _in_range(self, "idle_wait_s", 0.01, 10)
        _in_range(self, "max_turn_s", 0.5, 3600)
        _in_range(self, "final_budget_s", 0.001, 60)
        _in_range(self, "accurate_budget_s", 0.001, 60)
        _in_range(self, "accurate_batch_s", 1, 3600)
        _in_range(self, "accurate_queue_s", 1, 3600)
        _require(self.policy in POLICIES, "engine.policy", self.policy, "one of " + ", ".join(POLICIES))
        _in_range(self, "window_s", 2, 120)
        _in_range(self, "window_lag_s", 0, 600)


@dataclass(frozen=True, slots=True)
class PhraseHintSettings:
    """Words and phrases that a client expects.

    Attributes:
        max_phrases, max_characters: of a request in all. Their tree is built before the stream opens, on a thread of
            its own, unless another stream brought the same lately. It takes 100 ms at most, and to guess how unknown
            words sound 20 ms a word, 10 s for as many as are guessed of a request.
        default_boost, default_boost_per_letter: of hints that name none; short words are soon heard in others.
        max_waiting: calls whose trees wait to be built; the next one is refused.
    """

    table: typing.ClassVar[str] = "phrase_hints"

    max_phrases: int = 2000
    max_characters: int = 20_000
    default_boost: float = 10.0
    default_boost_per_letter: float = 1.25
    max_waiting: int = 64

    MOST_PHRASES: typing.ClassVar[int] = 5000
    MAX_CHARACTERS: typing.ClassVar[int] = 100
    MAX_WORDS: typing.ClassVar[int] = 10
    MAX_BOOST: typing.ClassVar[float] = 20.0
    # Clients send the same phrases with each stream: so many of their trees are kept.
    KEPT_TREES: typing.ClassVar[int] = 8
    # Words of a request whose pronunciations are guessed, and their letters in all: a letter takes about 1 ms of CPU.
    MOST_GUESSED: typing.ClassVar[int] = 500
    MOST_GUESSED_LETTERS: typing.ClassVar[int] = 4000
    # A longer word's is not guessed: hardly any word has so many letters, and hardly any guess gets them all right.
    LONGEST_GUESSED: typing.ClassVar[int] = 24

    def __post_init__(self) -> None:
        _in_range(self, "max_waiting", 1, 10_000)
        _in_range(self, "max_phrases", 0, self.MOST_PHRASES)
        _in_range(self, "max_characters", 0, self.MOST_PHRASES * self.MAX_CHARACTERS)
        _in_range(self, "default_boost", 0, self.MAX_BOOST)
        _in_range(self, "default_boost_per_letter", 0, self.MAX_BOOST)

    def boost(self, phrase: str) -> float:
        """Of a phrase that comes without."""
        return min(self.default_boost, self.default_boost_per_letter * sum(map(len, phrase.split())))


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of one process."""

    server: ServerSettings = field(default_factory=ServerSettings)
    stream: StreamSettings = field(default_factory=StreamSettings)
    audio: AudioSettings = field(default_factory=AudioSettings)
    endpointing: EndpointingSettings = field(default_factory=EndpointingSettings)
    engine: EngineSettings = field(default_factory=EngineSettings)
    phrase_hints: PhraseHintSettings = field(default_factory=PhraseHintSettings)

    def __post_init__(self) -> None:
        wanted, longest = self.endpointing.max_utterance_s, self.engine.max_utterance_s
        if wanted > longest:
            name, rule = "endpointing.max_utterance_s", f"at most engine.max_utterance_s, {longest:g}"
            raise ConfigError(f"setting {name} is {wanted:g}, must be {rule}", field=name)


def load_settings(path: Path | None = None) -> Settings:
    """Read a settings file; without one, the defaults. Raises ConfigError that names the file and what is wrong."""
    if path is None:
        return Settings()
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read settings file {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"settings file {path} is not TOML: {error}") from error
    try:
        return settings_from_tables(tables)
    except ConfigError as error:
        raise ConfigError(f"settings file {path}: {error.message}", field=error.field) from error


def settings_from_tables(tables: dict[str, Any]) -> Settings:
    """Build settings from parsed TOML. Raises ConfigError naming the table or name that is wrong."""
    known = {item.name: item.default_factory for item in dataclasses.fields(Settings)}
    parts: dict[str, Any] = {}
    for table, values in tables.items():
        if table not in known:
            raise ConfigError(f"there is no table [{table}]; there are {', '.join(known)}", field=table)
        if not isinstance(values, dict):
            raise ConfigError(f"{table} must be a table", field=table)
        parts[table] = _table(known[table], values)
    return Settings(**parts)


def _table(settings_class: Any, values: dict[str, Any]) -> Any:
    wanted = typing.get_type_hints(settings_class)
    names = [item.name for item in dataclasses.fields(settings_class)]
    checked: dict[str, Any] = {}
    for name, value in values.items():
        full = f"{settings_class.table}.{name}"
        if name not in names:
            raise ConfigError(f"there is no setting {full}; there are {', '.join(names)}", field=full)
        try:
            checked[name] = of_type(f"setting {full}", value, wanted[name])
        except ValueError as error:
            raise ConfigError(str(error), field=full) from error
    return settings_class(**checked)
