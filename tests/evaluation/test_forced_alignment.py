"""When words were said: by the phones of a bundle, and from the cache only where nothing has changed."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from asr_service.commands.demo import CLIP, REFERENCE
from asr_service.config import Settings
from asr_service.errors import ConfigError, InvalidAudio
from asr_service.evaluation.forced_alignment import AlignmentCache, ForcedAligner, SpokenWord
from asr_service.evaluation.normalizer import normalize_transcript
from asr_service.evaluation.reference import Reference
from asr_service.evaluation.waveform import read_waveform
from asr_service.lexicon import PHONE_IDS
from asr_service.model.bundle import DEFAULT_MODEL, SHIPPED_DIR, load_bundle
from tests.engine.conftest import make_tiny_bundle

RATE_HZ = 16_000


def hears(monkeypatch, aligner, labels):
    """Let the model hear these phones, one a 40 ms frame, "" for blank."""
    ids = [PHONE_IDS[label] if label else 0 for label in labels]
    log_probs = np.full((len(labels), 40), -9.0, dtype=np.float32)
    log_probs[np.arange(len(labels)), ids] = -0.01
    monkeypatch.setattr(aligner._runner, "encode_whole", lambda features: SimpleNamespace(phones=log_probs))


def test_words_lie_where_their_phones_were_heard(bundle_dir, monkeypatch):
    aligner = ForcedAligner(load_bundle(bundle_dir))
    hears(monkeypatch, aligner, ["", "", "B", "AA", "AA", "", "", "T", "IH", "", "K", ""])
    placed = aligner(np.zeros(RATE_HZ, dtype=np.float32), "Baa, TICK!")
    assert [word.text for word in placed] == ["baa", "tick"]
    times = [time_s for word in placed for time_s in (word.start_s, word.end_s)]
    assert times == pytest.approx([0.08, 0.20, 0.28, 0.44])


def test_a_word_does_not_end_after_its_recording(bundle_dir, monkeypatch):
    aligner = ForcedAligner(load_bundle(bundle_dir))
    hears(monkeypatch, aligner, ["", "T", "IH", "K"])
    (placed,) = aligner(np.zeros(RATE_HZ * 15 // 100, dtype=np.float32), "tick")
    assert placed.end_s == pytest.approx(0.15)


def test_a_word_without_a_pronunciation_takes_the_frames_between_its_neighbours(bundle_dir, monkeypatch):
    aligner = ForcedAligner(load_bundle(bundle_dir))
    hears(monkeypatch, aligner, ["", "B", "AA", "", "", "Z", "Z", "", "", "T", "IH", "K"])
    placed = aligner(np.zeros(RATE_HZ, dtype=np.float32), "baa zyzzyva tick")
    assert [word.text for word in placed] == ["baa", "zyzzyva", "tick"]
    assert placed[0].end_s <= placed[1].start_s < placed[1].end_s <= placed[2].start_s


def test_a_recording_too_short_for_its_words_is_refused(bundle_dir):
    aligner = ForcedAligner(load_bundle(bundle_dir))
    with pytest.raises(InvalidAudio, match=r"50 words do not fit into a recording of 0\.20 s"):
        aligner(np.zeros(RATE_HZ // 5, dtype=np.float32), "tick " * 50)
    with pytest.raises(InvalidAudio, match="do not fit"):
        aligner(np.zeros(0, dtype=np.float32), "tick")
    assert aligner(np.zeros(0, dtype=np.float32), " - ") == ()


def test_a_bundle_without_phones_is_refused(tmp_path):
    bundle = load_bundle(make_tiny_bundle(tmp_path / "pieces", phones=False))
    with pytest.raises(ConfigError, match="no phones"):
        ForcedAligner(bundle)


def test_the_cache_answers_for_the_same_samples_text_and_bundle_alone(tmp_path):
    waveform = np.linspace(-1, 1, 800, dtype=np.float32)
    words = (SpokenWord("tick", 0.04, 0.44),)
    cache = AlignmentCache(tmp_path / "kept", "bundle one")
    assert cache.get(waveform, "tick") is None
    cache.put(waveform, "tick", words)
    assert AlignmentCache(tmp_path / "kept", "bundle one").get(waveform.copy(), "tick") == words
    assert cache.get(waveform, "tock") is None
    assert cache.get(waveform[:-1], "tick") is None
    assert AlignmentCache(tmp_path / "kept", "bundle two").get(waveform, "tick") is None


def test_a_damaged_file_of_the_cache_is_none(tmp_path):
    cache = AlignmentCache(tmp_path, "bundle")
    waveform = np.zeros(10, dtype=np.float32)
    cache.put(waveform, "tick", [SpokenWord("tick", 0.0, 0.1)])
    (path,) = tmp_path.iterdir()
    for damage in ("", "{", '{"words": [["tick", "soon", 1]]}', "[]"):
        path.write_text(damage)
        assert cache.get(waveform, "tick") is None
    cache.put(waveform, "tick", [SpokenWord("tick", 0.0, 0.1)])
    assert cache.get(waveform, "tick") == (SpokenWord("tick", 0.0, 0.1),)
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write"):
        AlignmentCache(tmp_path / "file", "bundle").put(np.zeros(1, dtype=np.float32), "", [])


@pytest.mark.slow
def test_the_shipped_model_places_the_demos_words_within_its_speech():
    if not (SHIPPED_DIR / DEFAULT_MODEL).is_dir():
        pytest.skip("no model in the package")
    waveform = read_waveform(Reference("demo", "", CLIP), Settings())
    text = REFERENCE.read_text(encoding="utf-8")
    placed = ForcedAligner(load_bundle(SHIPPED_DIR / DEFAULT_MODEL))(waveform, text)
    assert [word.text for word in placed] == normalize_transcript(text).split()
    ends = [word.end_s for word in placed]
    assert ends == sorted(ends)
    loud = np.flatnonzero(np.abs(waveform) > 0.05) / RATE_HZ
    assert placed[0].start_s == pytest.approx(loud[0], abs=0.3)
    assert ends[-1] == pytest.approx(loud[-1], abs=0.3)
