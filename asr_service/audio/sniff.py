"""What the first bytes say of themselves."""

from __future__ import annotations

from asr_service.audio.mpeg_frame import HEADER_BYTES, parse_header
from asr_service.errors import EncodingUnknown
from asr_service.types import AudioEncoding

_OTHER_FORMATS = (
    (0, b"\x89PNG", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"GIF8", "a GIF image"),
    (0, b"\x7fELF", "an ELF executable"),
    (0, b"MZ", "a Windows executable"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"\x1f\x8b", "gzip data"),
    (0, b"%PDF", "a PDF document"),
    (4, b"ftyp", "an MP4/M4A file"),
    (0, b"\x1a\x45\xdf\xa3", "a WebM/Matroska file"),
    (0, b"NIST_1A", "a NIST SPHERE file"),
    (0, b"FORM", "an AIFF file"),
    (0, b"caff", "a Core Audio file"),
    (0, b".snd", "an AU file"),
    (0, b"RIFX", "a big-endian WAV (RIFX)"),
    (0, b"#!AMR", "an AMR file"),
    (0, b"RIFF", "RIFF"),
    (0, b"RF64", "RF64"),
    (0, b"fLaC", "FLAC"),
    (0, b"OggS", "Ogg"),
    (0, b"ID3", "an ID3 tag, as before MP3 or FLAC"),
)
_FLAC = b"fLaC"
_CONTAINERS = (
    (_FLAC, AudioEncoding.FLAC),
    (b"OggS", AudioEncoding.OGG_OPUS),
)
HEADER_BYTES_OF_ANY = 12
_TEXT = frozenset(range(0x20, 0x7F)) | {0x09, 0x0A, 0x0D}


def describe(head: bytes) -> str:
    """Say in words what `head` looks like, for messages."""
    for offset, magic, name in _OTHER_FORMATS:
        if head[offset : offset + len(magic)] == magic:
            return f"it looks like {name}"
    if head and all(byte in _TEXT for byte in head):
        return "it looks like text"
    return f"it begins with bytes {head[:8].hex(' ')}"


def identify_tagged(head: bytes, *, complete: bool) -> AudioEncoding | None:
    """As `identify`, for the bytes behind an ID3 tag: what begins with one is MP3, and sometimes FLAC."""
    if len(head) < len(_FLAC) and not complete:
        return None
    return AudioEncoding.FLAC if head.startswith(_FLAC) else AudioEncoding.MP3


def header_in(head: bytes) -> AudioEncoding | None:
    """The container whose header `head` is, of at least `HEADER_BYTES_OF_ANY` bytes; None for what may be samples.

    An MP3 without a tag is told by two frames only: raw samples may look like one.
    """
    is_tag = head.startswith(b"ID3") and 2 <= head[3] <= 4 and max(head[6:10]) < 0x80
    return AudioEncoding.MP3 if is_tag else _with_header(head)


def _with_header(head: bytes) -> AudioEncoding | None:
    if head[:4] in (b"RIFF", b"RF64", b"BW64") and head[8:12] == b"WAVE":
        return AudioEncoding.WAV
    return next((encoding for magic, encoding in _CONTAINERS if head.startswith(magic)), None)


def identify(head: bytes, *, complete: bool) -> AudioEncoding | None:
    """Recognise a container by its first bytes; Ogg counts as OGG_OPUS whatever codec is inside.

    Args:
        head: the first bytes.
        complete: True when no more will come.

    Returns:
        None while `head` is too short to tell (never when `complete`).

    Raises:
        EncodingUnknown: the bytes are of no container that is read here.
    """
    if len(head) < HEADER_BYTES_OF_ANY and not complete:
        return None
    if (header := _with_header(head)) is not None:
        return header
    # Two bytes of sync are not enough: UTF-16 text and raw samples have them too. A second frame must follow.
    first = parse_header(head)
    if first is not None:
        if len(head) < first.size + HEADER_BYTES and not complete:
            return None
        second = parse_header(head[first.size : first.size + HEADER_BYTES])
        if len(head) == first.size or (second is not None and second.continues(first)):
            return AudioEncoding.MP3
    raise EncodingUnknown(
        "config.encoding is unset and the audio has no header that is known (WAV, FLAC, Ogg Opus or Vorbis, MP3):"
        f" {describe(head[:64])}; raw samples need config.encoding and config.sample_rate_hertz",
        field="config.encoding",
    )
