"""What lossy codecs leave of speech: coded and decoded in memory, by libsndfile. N samples at 16 kHz.

GSM 06.10 full rate (13 kbit/s), MP3 (49 to 16 kbit/s), Opus (31 to 7) and Vorbis (52 to 31): calls, voice messages,
archives.
"""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

RATE_HZ = 16_000
# Encoder and decoder of MP3; the file says so only where its first frame has room for that, above 32 kbit/s.
_MP3_DELAY = 576 + 528 + 1


class Codec(NamedTuple):
    """In libsndfile's names; `compression` is its least and largest, None where there is one bit rate."""

    container: str
    subtype: str
    rate_hz: int
    compression: tuple[float, float] | None


CODECS = {
    "gsm": Codec("WAV", "GSM610", 8_000, None),
    "mp3": Codec("MP3", "MPEG_LAYER_III", RATE_HZ, (0.75, 0.95)),
    "opus": Codec("OGG", "OPUS", RATE_HZ, (0.9, 1.0)),
    "vorbis": Codec("OGG", "VORBIS", RATE_HZ, (0.5, 1.0)),
}


def coded(wave: NDArray[np.float32], name: str, strength: float) -> NDArray[np.float32]:
    """(N,) samples as after the codec, in time with those before it; full scale is 1, and what is above is cut.

    `name`: a key of `CODECS`. `strength`: 0 for its highest bit rate here, 1 for its lowest.
    """
    codec = CODECS[name]
    options: dict[str, float | str] = {}
    if codec.compression is not None:
        least, most = codec.compression
        options["compression_level"] = least + strength * (most - least)
    if name == "mp3":
        options["bitrate_mode"] = "CONSTANT"
    # Resampling overshoots, and what is above full scale comes back from GSM with the other sign.
    before = np.clip(soxr.resample(wave, RATE_HZ, codec.rate_hz), -1.0, 1.0)
    file = io.BytesIO()
    soundfile.write(file, before, codec.rate_hz, format=codec.container, subtype=codec.subtype, **options)
    file.seek(0)
    after, _ = soundfile.read(file, dtype="float32")
    if name == "mp3" and len(after) >= len(before) + _MP3_DELAY:
        after = after[_MP3_DELAY:]
    heard = soxr.resample(after, codec.rate_hz, RATE_HZ)[: len(wave)]
    return np.pad(heard, (0, len(wave) - len(heard)))
