"""Files that commands read and send as samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr_service.commands.recordings import file_chunks
from asr_service.config import Settings
from asr_service.errors import InvalidAudio

MD5_AT = 8 + 18


def test_all_of_a_file_is_sent_in_chunks_of_one_length_but_the_last(tmp_path: Path) -> None:
    samples = np.random.default_rng(1).uniform(-0.5, 0.5, 16_100).astype(np.float32)
    path = tmp_path / "speech.wav"
    soundfile.write(path, samples, 16_000, subtype="FLOAT")
    sent = list(file_chunks(path, 640, Settings()))
    assert [len(chunk) // 4 for chunk in sent] == [640] * 25 + [100]
    np.testing.assert_array_equal(np.frombuffer(b"".join(sent), "<f4"), samples)


def test_a_file_that_is_wrong_only_at_its_end_is_sent_before_the_error(tmp_path: Path) -> None:
    samples = np.random.default_rng(1).uniform(-0.5, 0.5, 16_100).astype(np.float32)
    path = tmp_path / "speech.flac"
    soundfile.write(path, samples, 16_000, subtype="PCM_24")
    data = bytearray(path.read_bytes())
    data[MD5_AT] ^= 1
    path.write_bytes(data)
    sent: list[bytes] = []
    with pytest.raises(InvalidAudio, match="MD5"):
        sent.extend(file_chunks(path, 640, Settings()))
    np.testing.assert_allclose(np.frombuffer(b"".join(sent), "<f4"), samples, atol=1e-6)
