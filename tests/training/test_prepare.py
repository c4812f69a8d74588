"""Every kind of faulty utterance is found, named and dropped only when that was asked for."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr_service.evaluation.normalizer import dropped_characters
from training import prepare
from training.data import read_manifest
from training.importers.native import read_native
from training.importers.record import Record
from training.inspection import REASONS, Inspector, Limits
from training.tokenizer import train

RATE = 16_000


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, round(seconds * RATE)).astype(np.float32)


def record(audio: Path, text: str = "hello there", **changes: object) -> Record:
    return replace(Record(audio.stem, audio, text, "anna", "c"), **changes)


def reasons(of: Record, **options: object) -> list[str]:
    return [reason for reason, _ in Inspector(**options)(of).faults]


@pytest.fixture
def wav(tmp_path) -> Path:
    path = tmp_path / "good.wav"
    soundfile.write(path, noise(1.0), RATE)
    return path


class TestFaults:
    def test_a_good_utterance_has_none(self, wav):
        inspection = Inspector()(record(wav, "Hello, there!"))
        assert inspection.faults == ()
        assert inspection.normalized == "hello there"
        assert (inspection.audio.n_samples, inspection.audio.sample_rate_hz) == (RATE, RATE)

    def test_a_missing_an_empty_and_a_foreign_file_are_unreadable(self, tmp_path):
        for name, content in (("empty.wav", b""), ("text.flac", b"once upon a time" * 99)):
            (tmp_path / name).write_bytes(content)
            assert reasons(record(tmp_path / name)) == ["unreadable"]
        assert reasons(record(tmp_path / "missing.flac")) == ["unreadable"]
        assert reasons(record(tmp_path)) == ["unreadable"]

    @pytest.mark.parametrize(("suffix", "subtype"), [("wav", "PCM_16"), ("flac", "PCM_16"), ("ogg", "VORBIS")])
    def test_a_file_that_was_cut_off_is_truncated_or_unreadable(self, tmp_path, suffix, subtype):
        path = tmp_path / f"cut.{suffix}"
        soundfile.write(path, noise(3.0), RATE, subtype=subtype)
        assert reasons(record(path)) == []
        data = path.read_bytes()
        for share in (0.9, 0.5):
            path.write_bytes(data[: int(len(data) * share)])
            assert {*reasons(record(path))} & {"truncated", "unreadable"}

    @pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
    def test_a_wav_file_whose_writer_did_not_know_its_size_has_none(self, wav, size):
        data = wav.read_bytes()
        wav.write_bytes(data[:4] + size.to_bytes(4, "little") + data[8:])
        assert reasons(record(wav)) == []

    def test_an_ogg_stream_without_its_last_page_is_truncated(self, tmp_path):
        path = tmp_path / "cut.ogg"
        soundfile.write(path, noise(9.0), RATE, subtype="VORBIS")
        data = path.read_bytes()
        path.write_bytes(data[: data.rfind(b"OggS")])
        assert reasons(record(path)) == ["truncated"]

    def test_a_header_without_samples_is_truncated(self, tmp_path):
        soundfile.write(tmp_path / "none.wav", np.zeros(0, np.float32), RATE)
        assert reasons(record(tmp_path / "none.wav")) == ["truncated"]

    @pytest.mark.parametrize(
        ("claimed_s", "expected"),
        [(1.0, []), (1.09, []), (1.2, ["truncated"]), (0.91, []), (0.8, ["duration_mismatch"])],
    )
    def test_the_duration_that_the_corpus_claims_is_compared(self, wav, claimed_s, expected):
        assert reasons(record(wav, duration_s=claimed_s)) == expected

    def test_samples_that_are_not_numbers_or_all_zero(self, tmp_path):
        broken = noise(1.0)
        broken[77] = np.nan
        soundfile.write(tmp_path / "nan.wav", broken, RATE, subtype="FLOAT")
        broken[77] = np.inf
        soundfile.write(tmp_path / "inf.wav", broken, RATE, subtype="FLOAT")
        soundfile.write(tmp_path / "zero.wav", np.zeros(RATE), RATE)
        assert reasons(record(tmp_path / "nan.wav")) == ["not_finite"]
        assert reasons(record(tmp_path / "inf.wav")) == ["not_finite"]
        assert reasons(record(tmp_path / "zero.wav")) == ["all_zero"]

    def test_a_rate_below_telephone_speech(self, tmp_path):
        soundfile.write(tmp_path / "low.wav", noise(1.0), 6_000)
        soundfile.write(tmp_path / "phone.wav", noise(1.0), 8_000)
        assert reasons(record(tmp_path / "low.wav")) == ["low_sample_rate"]
        assert reasons(record(tmp_path / "phone.wav")) == []

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("", ["empty_text"]),
            (" -- ", ["empty_text"]),
            ("a" * 30, []),
            ("a" * 31, ["too_fast"]),
            ("In 1984 we", ["unknown_characters"]),
            ("you & me", ["unknown_characters"]),
            ("Ж", ["unknown_characters", "empty_text"]),
        ],
    )
    def test_texts_that_nothing_can_be_learned_from(self, wav, text, expected):
        assert reasons(record(wav, text)) == expected

    def test_texts_that_are_too_short_for_their_audio(self, tmp_path):
        soundfile.write(tmp_path / "long.wav", noise(3.0), RATE)
        assert reasons(record(tmp_path / "long.wav", "a")) == ["too_slow"]
        assert reasons(record(tmp_path / "long.wav", "a"), limits=Limits(min_chars_per_s=0.2)) == []

    @pytest.mark.parametrize(
        ("text", "dropped"),
        [
            ("Don't “say” — naïve, café… ʼtis", ""),
            ("5 o'clock", "5"),
            ("50% of £3", "50%£3"),
            ("Straße", "ß"),
            ("ﬁne", ""),
        ],
    )
    def test_what_normalisation_would_drop_although_it_is_spoken(self, text, dropped):
        assert dropped_characters(text) == dropped

    def test_the_tokenizer_must_spell_every_text(self, wav, tmp_path):
        path = tmp_path / "tokenizer.json"
        options = {"normalizer": "nfc", "tokenizer": path}
        train(["hello there"], 64, normalizer="nfc").save(path)
        assert reasons(record(wav, "hello Ж"), **options) == ["unknown_characters"]
        spelling = tmp_path / "bytes.json"
        train(["hello there"], 400, normalizer="nfc", byte_fallback=True).save(spelling)
        assert reasons(record(wav, "hello Ж"), **options | {"tokenizer": spelling}) == []


class TestSegments:
    def test_only_its_own_samples_count(self, tmp_path):
        samples = noise(3.0)
        samples[RATE : 2 * RATE] = 0.0
        soundfile.write(tmp_path / "long.wav", samples, RATE, subtype="FLOAT")
        middle = record(tmp_path / "long.wav", offset_s=1.0, duration_s=1.0, segment=True)
        assert reasons(middle) == ["all_zero"]
        rest = Inspector()(replace(middle, offset_s=2.0, duration_s=None))
        assert not rest.faults
        assert rest.audio.n_samples == RATE
        soundfile.write(tmp_path / "tail.wav", samples[2 * RATE :], RATE, subtype="FLOAT")
        assert Inspector()(record(tmp_path / "tail.wav")).audio == rest.audio

    @pytest.mark.parametrize(("offset_s", "duration_s"), [(0.5, 1.0), (1.0, 1.0), (9.0, None)])
    def test_beyond_the_end_of_the_recording_it_is_truncated(self, wav, offset_s, duration_s):
        assert reasons(record(wav, offset_s=offset_s, duration_s=duration_s, segment=True))[0] == "truncated"


@pytest.fixture
def corpus(tmp_path) -> Callable[..., Path]:
    """Writes a manifest of given (name, samples, text) into tmp_path/in."""

    def write(*utterances: tuple[str, np.ndarray, str]) -> Path:
        folder = tmp_path / "in"
        folder.mkdir(exist_ok=True)
        rows = []
        for name, samples, text in utterances:
            soundfile.write(folder / name, samples, RATE)
            row = {"audio_filepath": name, "duration": len(samples) / RATE, "text": text, "speaker": "s", "corpus": "c"}
            rows.append(json.dumps(row))
        (folder / "m.jsonl").write_text("\n".join(rows))
        return folder / "m.jsonl"

    return write


def run(monkeypatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["prepare", *map(str, arguments), "--workers", "1"])
    try:
        prepare.main()
    except SystemExit as end:
        return end.code
    return 0


class TestCommand:
    def test_a_clean_corpus_becomes_a_manifest_that_training_reads(self, corpus, tmp_path, monkeypatch):
        manifest = corpus(("a.wav", noise(1.0), "Hello, YOU"), ("b.flac", noise(2.0, 1), "there"))
        out = tmp_path / "out" / "train.jsonl"
        assert run(monkeypatch, "--from", "manifest", manifest, "--out", out) == 0
        assert json.loads(out.read_text().splitlines()[0]) == {
            "audio_filepath": "../in/a.wav",
            "duration": 1.0,
            "text": "Hello, YOU",
            "speaker": "s",
            "corpus": "c",
        }
        read = read_manifest(out)
        assert [utterance.text for utterance in read] == ["hello you", "there"]
        assert all(utterance.path.exists() for utterance in read)
        assert sorted(path.name for path in out.parent.iterdir()) == ["train.jsonl", "train.report.json"]

    def test_nothing_is_dropped_in_silence(self, corpus, tmp_path, monkeypatch, capsys):
        manifest = corpus(
            ("a.wav", noise(1.0), "hello"), ("b.wav", noise(1.0, 1), ""), ("c.wav", noise(1.0, 2), "a" * 99)
        )
        out = tmp_path / "train.jsonl"
        options = ("--from", "manifest", manifest, "--out", out)
        assert run(monkeypatch, *options) == 2
        assert not out.exists()
        assert "--drop or --keep" in capsys.readouterr().err
        assert run(monkeypatch, *options, "--drop", "empty_text") == 2
        assert not out.exists()
        report = json.loads((tmp_path / "train.report.json").read_text())
        assert report["outcomes"]["dropped"]["utterances"] == report["outcomes"]["undecided"]["utterances"] == 1
        assert [(u["id"], u["outcome"], u["faults"][0]["reason"]) for u in report["utterances"]] == [
            ("b.wav", "dropped", "empty_text"),
            ("c.wav", "undecided", "too_fast"),
        ]
        assert run(monkeypatch, *options, "--drop", "empty_text,too_fast") == 0
        assert len(out.read_text().splitlines()) == 1
        out.unlink()
        assert run(monkeypatch, *options, "--drop", "all") == 0
        assert len(out.read_text().splitlines()) == 1
        assert run(monkeypatch, *options, "--drop", "empty_text", "--keep", "too_fast") == 0
        assert len(out.read_text().splitlines()) == 2
        table = capsys.readouterr().out.splitlines()
        assert table[-4].startswith("kept: 2 utterances")

    def test_where_nothing_is_kept_no_manifest_is_written(self, corpus, tmp_path, monkeypatch, capsys):
        out = tmp_path / "o.jsonl"
        options = ("--from", "manifest", corpus(("b.wav", noise(1.0), "")), "--out", out, "--drop", "all")
        assert run(monkeypatch, *options) == 2
        assert not out.exists() and (tmp_path / "o.report.json").exists()
        assert f"prepare: {out} is not written: none of 1 utterance is kept" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("options", "told"), [("--tokenizer nope.json", "prepare: nope.json"), ("--workers 0", "must be 1")]
    )
    def test_wrong_options_are_told_in_a_line(self, corpus, tmp_path, monkeypatch, capsys, options, told):
        manifest, out = corpus(("a.wav", noise(1.0), "hello")), tmp_path / "o.jsonl"
        monkeypatch.setattr(
            sys, "argv", ["prepare", "--from", "manifest", str(manifest), "--out", str(out), *options.split()]
        )
        with pytest.raises(SystemExit, match="2"):
            prepare.main()
        assert told in capsys.readouterr().err.splitlines()[-1]
        assert not out.exists()

    def test_a_refused_run_leaves_the_manifest_of_an_earlier_one(self, corpus, tmp_path, monkeypatch):
        out = tmp_path / "train.jsonl"
        out.write_text("earlier")
        assert run(monkeypatch, "--from", "manifest", corpus(("b.wav", noise(1.0), "")), "--out", out) == 2
        assert out.read_text() == "earlier"

    def test_what_cannot_be_read_cannot_be_kept(self, corpus, tmp_path, monkeypatch):
        manifest = corpus(("a.wav", noise(1.0), "hello"))
        (manifest.parent / "a.wav").write_bytes(b"RIFF")
        assert (
            run(monkeypatch, "--from", "manifest", manifest, "--out", tmp_path / "o.jsonl", "--keep", "unreadable") == 2
        )

    @pytest.mark.parametrize("arguments", [("--drop", "everything"), ("--drop", "too_fast", "--keep", "all")])
    def test_reasons_that_do_not_exist_or_contradict_are_refused(
        self, corpus, tmp_path, monkeypatch, capsys, arguments
    ):
        manifest = corpus(("a.wav", noise(1.0), "hello"))
        assert run(monkeypatch, "--from", "manifest", manifest, "--out", tmp_path / "o.jsonl", *arguments) == 2
        assert "everything: the reasons are" in (error := capsys.readouterr().err) or "both --drop and --keep" in error

    def test_a_corpus_that_is_not_as_its_format_says_is_refused_with_the_list(self, tmp_path, monkeypatch, capsys):
        bad, out = tmp_path / "bad.jsonl", tmp_path / "o.jsonl"
        bad.write_text("{\n[]\n")
        for path, wrong in ((tmp_path / "nothing.jsonl", ["No such file"]), (bad, ["not JSON", "not a JSON object"])):
            assert run(monkeypatch, "--from", "manifest", path, "--out", out) == 2
            told = capsys.readouterr().err.splitlines()
            assert len(told) == len(wrong) and all(map(str.__contains__, told, wrong))
            assert str(path) in told[0]
        assert list(tmp_path.iterdir()) == [bad]

    def test_segments_keep_their_offset(self, corpus, tmp_path, monkeypatch):
        manifest = corpus(("a.wav", noise(3.0), "hello"))
        row = json.loads(manifest.read_text()) | {"offset": 1.25, "duration": 1.5}
        manifest.write_text(json.dumps(row))
        out = tmp_path / "in" / "o.jsonl"
        assert run(monkeypatch, "--from", "manifest", manifest, "--out", out) == 0
        assert json.loads(out.read_text()) == row
        (read,) = read_native(out)
        assert (read.offset_s, read.duration_s) == (1.25, 1.5)


class TestDuplicates:
    def judged(self, manifest: Path, drop=frozenset(REASONS)) -> list[tuple[str, list[str]]]:
        inspections = map(Inspector(), read_native(manifest))
        verdicts = prepare.judge(inspections, drop=drop, keep=())
        return [(v.inspection.record.utterance_id, [reason for reason, _ in v.faults]) for v in verdicts]

    def test_the_same_samples_in_another_file_and_format(self, corpus):
        samples = np.round(noise(1.0) * 2**14) / 2**15
        manifest = corpus(("a.wav", samples, "one"), ("b.flac", samples, "two"), ("c.wav", noise(1.5, 1), "three"))
        assert self.judged(manifest) == [("a.wav", []), ("b.flac", ["duplicate_audio"]), ("c.wav", [])]

    def test_the_same_text_speaker_and_length(self, corpus):
        long, short = noise(1.0), noise(1.5, 1)
        manifest = corpus(
            ("a.wav", long, "One by one"), ("b.wav", noise(1.0, 2), "one, by one!"), ("c.wav", short, "One by one")
        )
        assert self.judged(manifest) == [("a.wav", []), ("b.wav", ["duplicate_text"]), ("c.wav", [])]

    def test_a_word_said_twice_in_the_same_time_is_none(self, corpus):
        manifest = corpus(("a.wav", noise(1.0), "seven"), ("b.wav", noise(1.0, 1), "seven"))
        assert self.judged(manifest) == [("a.wav", []), ("b.wav", [])]

    def test_the_same_id(self, corpus):
        manifest = corpus(("a.wav", noise(1.0), "one by one"))
        manifest.write_text(f"{manifest.read_text()}\n{manifest.read_text()}")
        assert self.judged(manifest)[1] == ("a.wav", ["duplicate_id", "duplicate_audio", "duplicate_text"])

    def test_of_two_the_sound_one_stays(self, corpus):
        samples = np.round(noise(1.0) * 2**14) / 2**15
        manifest = corpus(("a.wav", samples, ""), ("b.wav", samples, "hello"))
        assert self.judged(manifest) == [("a.wav", ["empty_text"]), ("b.wav", [])]

    def test_silence_is_no_duplicate_of_silence(self, corpus):
        manifest = corpus(("a.wav", np.zeros(RATE), "one"), ("b.wav", np.zeros(RATE), "two"))
        assert self.judged(manifest, drop=()) == [("a.wav", ["all_zero"]), ("b.wav", ["all_zero"])]


TEXTS = {"7-1-0": "HELLO THERE", "7-1-1": "GENERAL"}


class TestSources:
    """One corpus of two utterances, in each format."""

    def audio(self, folder: Path, suffix: str) -> dict[str, Path]:
        folder.mkdir(parents=True)
        paths = {name: folder / f"{name}.{suffix}" for name in TEXTS}
        for seed, path in enumerate(paths.values()):
            soundfile.write(path, noise(1.0 + seed, seed), RATE)
        return paths

    def librispeech(self, root: Path) -> Path:
        self.audio(root / "clean" / "7" / "1", "flac")
        lines = [f"{name} {text}\n" for name, text in TEXTS.items()]
        (root / "clean" / "7" / "1" / "7-1.trans.txt").write_text("".join(lines))
        return root

    def kaldi(self, root: Path) -> Path:
        paths = self.audio(root / "audio", "wav")
        (root / "wav.scp").write_text("".join(f"{name} {path}\n" for name, path in paths.items()))
        (root / "text").write_text("".join(f"{name} {text}\n" for name, text in TEXTS.items()))
        (root / "utt2spk").write_text("".join(f"{name} 7\n" for name in TEXTS))
        return root

    def common_voice(self, root: Path) -> Path:
        self.audio(root / "clips", "mp3")
        rows = [f"7\t{name}.mp3\t{text}\n" for name, text in TEXTS.items()]
        (root / "train.tsv").write_text("client_id\tpath\tsentence\n" + "".join(rows))
        return root / "train.tsv"

    def lhotse(self, root: Path) -> Path:
        lhotse = pytest.importorskip("lhotse")
        cuts = []
        for name, path in self.audio(root, "flac").items():
            cut = lhotse.Recording.from_file(path).to_cut()
            spoken = lhotse.SupervisionSegment(name, name, 0, cut.duration, text=TEXTS[name], speaker="7")
            cut.supervisions.append(spoken)
            cuts.append(cut)
        lhotse.CutSet.from_cuts(cuts).to_file(root / "cuts.jsonl.gz")
        return root / "cuts.jsonl.gz"

    @pytest.mark.parametrize("source", ["librispeech", "kaldi", "common_voice", "lhotse"])
    def test_training_reads_the_same_utterances(self, tmp_path, monkeypatch, source):
        path = getattr(self, source)(tmp_path / source)
        out = tmp_path / "manifests" / "train.jsonl"
        assert run(monkeypatch, "--from", source, path, "--out", out, "--corpus", "mine") == 0
        utterances = read_manifest(out)
        assert [(u.text, u.speaker, u.corpus) for u in utterances] == [
            ("hello there", "7", "mine"),
            ("general", "7", "mine"),
        ]
        assert [u.duration_s for u in utterances] == pytest.approx([1.0, 2.0], abs=0.1)
        assert [soundfile.info(u.path).samplerate for u in utterances] == [RATE, RATE]
