"""A byte queue for incremental parsers: take what is complete, skip what has not even arrived."""

from __future__ import annotations


class ByteBuffer:
    """Bytes in arrival order. `skip` reaches beyond what has arrived, so that large tags are never held."""

    __slots__ = ("_bytes", "_skip")

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._skip = 0

    def __len__(self) -> int:
        return len(self._bytes)

    @property
    def skipping(self) -> bool:
        """True while bytes to skip have not arrived yet."""
        return self._skip > 0

    def append(self, data: bytes) -> None:
        if self._skip:
            dropped = min(self._skip, len(data))
            self._skip -= dropped
            data = data[dropped:]
        self._bytes += data

    def peek(self, size: int, offset: int = 0) -> bytes:
        """Return up to `size` bytes from `offset` without taking them."""
        return bytes(self._bytes[offset : offset + size])

    def find(self, pattern: bytes, start: int = 0) -> int:
        return self._bytes.find(pattern, start)

    def take(self, size: int) -> bytes:
        """Take `size` bytes, which must be there."""
        assert size <= len(self._bytes)
        taken = bytes(self._bytes[:size])
        del self._bytes[:size]
        return taken

    def take_all(self) -> bytes:
        return self.take(len(self._bytes))

    def skip(self, size: int) -> None:
        here = min(size, len(self._bytes))
        del self._bytes[:here]
        self._skip += size - here
