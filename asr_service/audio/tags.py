"""Tags around audio: ID3v2 before it; behind the frames of an MP3 ID3v1, APEv2 and Lyrics3, which have no place in it.

Files put one behind the other have them in the middle, so each is skipped exactly, and nothing after it is lost.
"""

from __future__ import annotations

from asr_service.audio.buffer import ByteBuffer
from asr_service.audio.limits import AudioLimits
from asr_service.audio.source import invalid

_ID3V2, _ID3V1, _APE, _LYRICS = b"ID3", b"TAG", b"APETAGEX", b"LYRICSBEGIN"
_HEADER_BYTES = {_ID3V2: 10, _ID3V1: 3, _APE: 32, _LYRICS: 11}
"""What must have arrived to know a tag's size, or for Lyrics3 that it is one."""
BEFORE_AUDIO = (_ID3V2,)
ANYWHERE = tuple(_HEADER_BYTES)
_LONGEST_HEADER = max(_HEADER_BYTES.values())
_ID3V1_BYTES = 128
_APE_HAS_HEADER = 1 << 29
"""Of the flags: this is the tag's header. Else it is the footer of a tag that has none, and what it tells is behind."""
_LYRICS_ENDS = (b"LYRICSEND", b"LYRICS200")
_LYRICS_END_BYTES = 9
_MAX_LYRICS_BYTES = 1_000_020
"""The size in front of the end mark has six digits."""


class TagSkipper:
    """Skips the tags at the front of a buffer, without holding them.

    Args:
        buffer: the source's, from which the tags are taken.
        container: its name in messages.
        limits: bound all tags that follow one another.
        kinds: BEFORE_AUDIO or ANYWHERE.
    """

    def __init__(
        self, buffer: ByteBuffer, container: str, limits: AudioLimits, kinds: tuple[bytes, ...] = BEFORE_AUDIO
    ) -> None:
        self._buffer = buffer
        self._container = container
        self._limits = limits
        self._kinds = kinds
        self._skipped = 0
        self._lyrics_bytes: int | None = None
        """Of a Lyrics3 tag whose end has not been found."""

    @property
    def any_skipped(self) -> bool:
        """True if there was a tag since the last bytes that are none."""
        return self._skipped > 0

    def skip(self, *, complete: bool) -> bool:
        """Skip to the first bytes that are no tag. False where they have not arrived, with `complete` never will.

        A tag that the end of the input cuts off is skipped too.

        Raises:
            InvalidAudio: a tag is broken or too large.
        """
        while not self._buffer.skipping:
            if self._lyrics_bytes is not None:
                if not self._skip_lyrics(complete=complete):
                    return False
                continue
            head = self._buffer.peek(_LONGEST_HEADER)
            kind = next((kind for kind in self._kinds if kind.startswith(head[: len(kind)])), None)
            if kind is None or (complete and len(head) < len(kind)):
                return True
            if len(head) < _HEADER_BYTES[kind]:
                if complete:
                    self._buffer.skip(len(head))
                return False
            self._skip_tag(kind, head)
        return False

    def audio_found(self) -> None:
        """Audio begins here: tags are counted anew."""
        self._skipped = 0

    def _skip_tag(self, kind: bytes, head: bytes) -> None:
        if kind == _LYRICS:
            self._lyrics_bytes = 0
            return
        if kind == _ID3V2:
            name, size = "an ID3 tag", self._id3v2_size(head)
        elif kind == _APE:
            name, size = "an APE tag", _ape_size(head)
        else:
            name, size = "an ID3v1 tag", _ID3V1_BYTES
        self._count(f"{name} of {size} bytes", size)
        self._buffer.skip(size)

    def _id3v2_size(self, head: bytes) -> int:
        """Four bytes of seven bits each; a flag announces a footer as long as the header."""
        size = 0
        for byte in head[6:10]:
            if byte & 0x80:
                raise invalid(self._container, "its ID3 tag is broken")
            size = size << 7 | byte
        return size + _HEADER_BYTES[_ID3V2] * (2 if head[5] & 0x10 else 1)

    def _skip_lyrics(self, *, complete: bool) -> bool:
        """Skip to behind the end mark. False where it has not come: all is skipped but what may be its beginning."""
        assert self._lyrics_bytes is not None
        places = [place for place in map(self._buffer.find, _LYRICS_ENDS) if place >= 0]
        if places:
            here = min(places) + _LYRICS_END_BYTES
        else:
            here = len(self._buffer) if complete else max(len(self._buffer) - _LYRICS_END_BYTES + 1, 0)
        self._lyrics_bytes += here
        if self._lyrics_bytes > _MAX_LYRICS_BYTES:
            raise invalid(self._container, f"a Lyrics3 tag that does not end within {_MAX_LYRICS_BYTES} bytes")
        self._count("a Lyrics3 tag", here)
        self._buffer.skip(here)
        if places:
            self._lyrics_bytes = None
        return bool(places)

    def _count(self, what: str, size: int) -> None:
        self._skipped += size
        if self._skipped > self._limits.max_metadata_bytes:
            limit = self._limits.max_metadata_bytes
            raise invalid(self._container, f"{what}; at most {limit} bytes of tags in a row are skipped")


def _ape_size(head: bytes) -> int:
    """The size in the header leaves the header out; that in a footer tells of what came before it."""
    size, flags = int.from_bytes(head[12:16], "little"), int.from_bytes(head[20:24], "little")
    return _HEADER_BYTES[_APE] + (size if flags & _APE_HAS_HEADER else 0)
