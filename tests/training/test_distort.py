from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from training import distort
from training.augmentation.codec import coded


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    rows = []
    for number in range(7):
        soundfile.write(tmp_path / f"{number}.flac", rng.normal(0, 0.1, 16_000).clip(-1, 1), 16_000)
        row = {"audio_filepath": f"{number}.flac", "text": "a", "duration": 1.0, "speaker": str(number), "corpus": "c"}
        rows.append(json.dumps(row))
    path = tmp_path / "clean.jsonl"
    path.write_text("\n".join(rows) + "\n")
    return path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["distort", *arguments])
    distort.main()


@pytest.mark.parametrize("kind", ["white", "pink", "brown", "babble"])
def test_noise_has_the_ratio_asked_for_and_is_the_same_each_time(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    for name in ("one", "two"):
        run(monkeypatch, str(manifest), "--noise", kind, "--snr-db", "10", "--out", str(tmp_path / name))
    row = json.loads((tmp_path / "one" / "manifest.jsonl").read_text().splitlines()[0])
    mixed, _ = soundfile.read(tmp_path / "one" / row["audio_filepath"])
    again, _ = soundfile.read(tmp_path / "two" / row["audio_filepath"])
    clean, _ = soundfile.read(manifest.parent / "0.flac")
    assert np.array_equal(mixed, again)
    ratio_db = 10 * np.log10(np.mean(clean**2) / np.mean((mixed - clean) ** 2))
    assert ratio_db == pytest.approx(10.0, abs=0.1)
    assert row["text"] == "a" and row["speaker"] == "0"


def test_silence_stays_silence(manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "0.flac", np.zeros(1_000), 16_000)
    run(monkeypatch, str(manifest), "--noise", "white", "--out", str(tmp_path / "out"))
    mixed, _ = soundfile.read(tmp_path / "out" / "00000.wav")
    assert mixed.shape == (1_000,) and not mixed.any()


def test_loud_noise_is_scaled_down_and_never_clipped(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(monkeypatch, str(manifest), "--noise", "white", "--snr-db", "-20", "--out", str(tmp_path / "out"))
    mixed, _ = soundfile.read(tmp_path / "out" / "00000.wav")
    clean, _ = soundfile.read(manifest.parent / "0.flac")
    assert np.abs(mixed).max() == pytest.approx(0.99, abs=1e-3)
    share = float(np.dot(mixed, clean) / np.dot(clean, clean))
    ratio_db = 10 * np.log10(np.mean((share * clean) ** 2) / np.mean((mixed - share * clean) ** 2))
    assert ratio_db == pytest.approx(-20.0, abs=1.0)


def test_babble_has_no_voice_of_the_clips_own_speaker(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    manifest.write_text("".join(json.dumps(row | {"speaker": "b" if n else "a"}) + "\n" for n, row in enumerate(rows)))
    monkeypatch.setattr(distort, "VOICES", 1)
    heard: list[str] = []
    original = distort.read_audio
    monkeypatch.setattr(distort, "read_audio", lambda clip, folder: heard.append(clip.name) or original(clip, folder))
    run(monkeypatch, str(manifest), "--noise", "babble", "--out", str(tmp_path / "out"))
    voices = heard[1::2]
    assert heard[::2] == [row["audio_filepath"] for row in rows]
    assert voices[0] != "0.flac" and set(voices[1:]) == {"0.flac"}


def test_the_telephone_is_8_khz_mu_law(manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch, str(manifest), "--telephone", "--every", "3", "--out", str(tmp_path / "line"))
    lines = (tmp_path / "line" / "manifest.jsonl").read_text().splitlines()
    assert len(lines) == 3
    info = soundfile.info(tmp_path / "line" / json.loads(lines[1])["audio_filepath"])
    assert (info.samplerate, info.subtype, info.frames) == (8_000, "ULAW", 8_000)


def test_what_a_codec_leaves_is_as_long_as_the_clip(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(monkeypatch, str(manifest), "--codec", "gsm", "--every", "3", "--out", str(tmp_path / "gsm"))
    row = json.loads((tmp_path / "gsm" / "manifest.jsonl").read_text().splitlines()[0])
    heard, rate = soundfile.read(tmp_path / "gsm" / row["audio_filepath"])
    clean, _ = soundfile.read(manifest.parent / "0.flac")
    assert rate == 16_000 and heard.shape == clean.shape
    assert 0.001 < np.sqrt(np.mean((heard - clean) ** 2)) < 2 * np.sqrt(np.mean(clean**2))


def test_a_codec_leaves_what_its_lowest_bit_rate_does(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(monkeypatch, str(manifest), "--codec", "vorbis", "--every", "9", "--out", str(tmp_path / "out"))
    heard, _ = soundfile.read(tmp_path / "out" / "00000.wav", dtype="float32")
    clean, _ = soundfile.read(manifest.parent / "0.flac", dtype="float32")
    lowest, highest = (np.clip(coded(clean, "vorbis", strength), -1.0, 1.0) for strength in (1.0, 0.0))
    np.testing.assert_allclose(heard, lowest, atol=1e-3)
    assert np.abs(lowest - highest).max() > 0.01


def test_no_utterance_is_an_error_that_names_the_corpus(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    corpora = ["--corpus", "c", "--corpus", "other"]
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch, str(manifest), "--telephone", *corpora, "--out", str(tmp_path / "line"))
    assert "clean.jsonl: no utterance of other" in capsys.readouterr().err


def test_a_part_of_a_recording_becomes_a_file_of_its_own(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"audio_filepath": "0.flac", "text": "a", "duration": 0.25, "offset": 0.5}
    manifest.write_text(json.dumps(row) + "\n")
    run(monkeypatch, str(manifest), "--telephone", "--out", str(tmp_path / "line"))
    written = json.loads((tmp_path / "line" / "manifest.jsonl").read_text())
    assert soundfile.info(tmp_path / "line" / written["audio_filepath"]).frames == 2_000
    assert "offset" not in written and written["duration"] == 0.25


@pytest.mark.parametrize("kind", ["white", "babble"])
def test_parts_of_one_recording_have_different_noise(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    audio = np.zeros(16_000)
    audio[:4_000] = audio[8_000:12_000] = np.sin(np.arange(4_000))
    soundfile.write(tmp_path / "0.flac", audio, 16_000)
    others = manifest.read_text().splitlines()[1:]
    parts = [{"audio_filepath": "0.flac", "text": "a", "duration": 0.25, "offset": offset} for offset in (0.0, 0.5)]
    manifest.write_text("\n".join([*map(json.dumps, parts), *others]) + "\n")
    run(monkeypatch, str(manifest), "--noise", kind, "--out", str(tmp_path / "out"))
    one, two = (soundfile.read(tmp_path / "out" / f"0000{number}.wav")[0] for number in range(2))
    assert len(one) == len(two) == 4_000
    assert not np.array_equal(one, two)


def test_the_seed_of_a_whole_file_is_its_name() -> None:
    row: dict[str, object] = {"audio_filepath": "0.flac", "duration": 1.0}
    assert distort.clip_of(row).seed == "0.flac"
    assert distort.clip_of({**row, "offset": 2}).seed == distort.clip_of({**row, "offset": 2.0}).seed == "0.flac@2.0"


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"audio_filepath": "0.flac", "offset": 0.5}, "no duration"),
        ({"audio_filepath": "0.flac", "offset": "soon", "duration": 0.25}, "offset is 'soon', not a number of seconds"),
        ({"audio_filepath": "0.flac", "offset": 0.5, "duration": -1}, "duration is -1, not a number of seconds"),
        ({}, "no audio_filepath"),
    ],
)
def test_a_wrong_field_is_told_in_a_line(
    manifest: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fields: dict[str, object],
    told: str,
) -> None:
    manifest.write_text(json.dumps({"text": "a", **fields}) + "\n")
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch, str(manifest), "--telephone", "--out", str(tmp_path / "line"))
    (line,) = capsys.readouterr().err.splitlines()
    assert f"clean.jsonl:1: {told}" in line
    assert not (tmp_path / "line").exists()


@pytest.mark.parametrize("wrong", ["too few voices", "no audio", "no samples", "not finite"])
def test_what_makes_a_clip_impossible_is_told_in_a_line(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], wrong: str
) -> None:
    if wrong == "no audio":
        (tmp_path / "0.flac").write_bytes(b"once upon a time")
    elif wrong in ("no samples", "not finite"):
        samples = np.zeros(0) if wrong == "no samples" else np.array([0.1, np.nan])
        soundfile.write(tmp_path / "0.flac", samples, 16_000, format="WAV", subtype="FLOAT")
    every = "2" if wrong == "too few voices" else "1"
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch, str(manifest), "--noise", "babble", "--every", every, "--out", str(tmp_path / "out"))
    told = {
        "too few voices": "babble is of 5 utterances of other speakers",
        "no audio": "0.flac: cannot be read",
        "no samples": "0.flac: no samples",
        "not finite": "0.flac: samples that are not finite",
    }
    assert told[wrong] in capsys.readouterr().err.splitlines()[-1]
