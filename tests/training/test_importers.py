"""Corpora as they are published become records; what is not as its format says is refused by file and line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr_service.evaluation.references import read_references
from training.importers.common_voice import read_common_voice
from training.importers.kaldi import read_kaldi
from training.importers.lhotse import read_lhotse
from training.importers.librispeech import read_librispeech
from training.importers.native import read_native
from training.importers.record import CorpusError, Record
from training.inspection import Audio, Inspection
from training.prepare import manifest_row


def files(folder: Path, contents: dict[str, str]) -> Path:
    for name, text in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


class TestLibriSpeech:
    def test_each_line_is_an_utterance_with_the_speaker_and_subset_of_its_folders(self, tmp_path):
        chapter = "LibriSpeech/dev-clean/19/198/19-198"
        files(tmp_path, {f"{chapter}.trans.txt": "19-198-0000 HELLO THERE\n19-198-0001 YES\n"})
        files(tmp_path, {f"{chapter}-0000.flac": "", f"{chapter}-0001.opus": ""})
        folder = tmp_path / "LibriSpeech/dev-clean/19/198"
        assert list(read_librispeech(tmp_path)) == [
            Record("19-198-0000", folder / "19-198-0000.flac", "HELLO THERE", "19", "dev-clean", named=True),
            Record("19-198-0001", folder / "19-198-0001.opus", "YES", "19", "dev-clean", named=True),
        ]
        assert {record.corpus for record in read_librispeech(tmp_path, corpus="mini")} == {"mini"}

    def test_recordings_without_a_transcript_and_transcripts_without_a_recording_are_not_left_out(self, tmp_path):
        files(tmp_path, {"s/1/2/1-2.trans.txt": "1-2-0 GONE\n", "s/1/2/1-2-1.flac": "", "s/1/3/1-3-0.flac": ""})
        found = {record.utterance_id: (record.text, record.audio.name) for record in read_librispeech(tmp_path)}
        assert found == {"1-2-0": ("GONE", "1-2-0.flac"), "1-2-1": ("", "1-2-1.flac"), "1-3-0": ("", "1-3-0.flac")}

    def test_a_folder_within_a_chapter_does_not_part_its_recordings_from_their_transcript(self, tmp_path):
        files(tmp_path, {"s/1/2/1-2.trans.txt": "1-2-9 LAST\n", "s/1/2/1-2.x/1-2-5.flac": "", "s/1/2/1-2-9.flac": ""})
        assert [(r.utterance_id, r.text) for r in read_librispeech(tmp_path)] == [("1-2-9", "LAST"), ("1-2-5", "")]

    def test_a_folder_without_transcripts_is_refused(self, tmp_path):
        with pytest.raises(CorpusError, match="no LibriSpeech tree"):
            list(read_librispeech(files(tmp_path, {"a/b.flac": ""})))

    def test_an_id_that_stands_twice_in_a_transcript_is_refused(self, tmp_path):
        files(tmp_path, {"s/1/2/1-2.trans.txt": "1-2-0 ONE\n1-2-0 TWO\n"})
        with pytest.raises(CorpusError, match=r"1-2\.trans\.txt:2: 1-2-0 stands there twice"):
            list(read_librispeech(tmp_path))


WHOLE = {"wav.scp": "u1 a.wav\nu2\t/data/b.flac\n", "text": "u1 one two\nu2\tthree\n", "utt2spk": "u1 anna\nu2 bert\n"}
SEGMENTED = {
    "wav.scp": "rec long.wav\n",
    "segments": "u1 rec 0.5 2.25\nu2 rec 3 -1\n",
    "text": "u1 one two\n",
    "utt2spk": "u1 anna\nu2 anna\n",
}


class TestKaldi:
    def test_whole_recordings(self, tmp_path):
        folder = files(tmp_path / "train", WHOLE)
        assert list(read_kaldi(folder, audio_root=Path("/root"))) == [
            Record("u1", Path("/root/a.wav"), "one two", "anna", "train", named=True),
            Record("u2", Path("/data/b.flac"), "three", "bert", "train", named=True),
        ]

    def test_segments_have_offsets_and_one_without_text_is_empty(self, tmp_path):
        folder = files(tmp_path, SEGMENTED)
        assert list(read_kaldi(folder, corpus="c")) == [
            Record(
                "u1", Path("long.wav"), "one two", "anna", "c", offset_s=0.5, duration_s=1.75, segment=True, named=True
            ),
            Record("u2", Path("long.wav"), "", "anna", "c", offset_s=3.0, duration_s=None, segment=True, named=True),
        ]

    @pytest.mark.parametrize("command", ["touch {} |", "| touch {}"])
    def test_pipes_are_refused_and_not_run(self, tmp_path, command):
        marker = tmp_path / "ran"
        folder = files(tmp_path, WHOLE | {"wav.scp": f"u1 {command.format(marker)}\nu2 b.wav\n"})
        with pytest.raises(CorpusError, match="u1 is the output of a command"):
            list(read_kaldi(folder))
        assert not marker.exists()

    @pytest.mark.parametrize(
        ("contents", "message"),
        [
            (WHOLE | {"wav.scp": "u1 raw.ark:35\nu2 b.wav\n"}, "not an audio file"),
            (WHOLE | {"wav.scp": "u1 a.wav\nu1 b.wav\n"}, r"wav\.scp:2: u1 stands there twice"),
            (WHOLE | {"text": "u1 a\nu9 b\n"}, "u9: the recording u9 is not in wav.scp"),
            (WHOLE | {"utt2spk": "u1 anna\n"}, "u2 has no speaker"),
            (SEGMENTED | {"segments": "u1 other 0 1\n"}, "the recording other is not in wav.scp"),
            (SEGMENTED | {"segments": "u1 rec 0\n"}, "segments needs a recording, its begin and its end"),
            (SEGMENTED | {"segments": "u1 rec 2 1\n"}, "empty or runs backwards"),
            (SEGMENTED | {"segments": "u1 rec nan 1\n"}, "begin in segments is 'nan'"),
        ],
    )
    def test_what_does_not_fit_together_is_refused(self, tmp_path, contents, message):
        with pytest.raises(CorpusError, match=message):
            list(read_kaldi(files(tmp_path, contents)))

    def test_all_that_is_wrong_is_told_at_once(self, tmp_path):
        wrong = {"wav.scp": "rec sox |\n", "segments": "u1 rec 2 1\nu2 other 0 1\n", "utt2spk": "u1 anna\n"}
        with pytest.raises(CorpusError) as refused:
            list(read_kaldi(files(tmp_path, SEGMENTED | wrong)))
        told = ["output of a command", "u2 has no speaker", "u1: its segment 2 to 1 s", "recording other is not in"]
        found = str(refused.value).splitlines()
        assert len(found) == len(told) and all(map(str.__contains__, found, told))

    def test_a_duration_that_the_corpus_knows_is_kept(self, tmp_path):
        folder = files(tmp_path, WHOLE | {"utt2dur": "u1 2.5\n"})
        assert [(record.duration_s, record.segment) for record in read_kaldi(folder)] == [(2.5, False), (None, False)]

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(CorpusError, match=r"utt2spk: No such file"):
            list(read_kaldi(files(tmp_path, {"wav.scp": "u a.wav\n", "text": "u a\n"})))


class TestCommonVoice:
    def test_rows_become_utterances_with_their_quotes(self, tmp_path):
        table = 'client_id\tpath\tsentence\tup_votes\nab\tclip_1.mp3\t"Yes," he said.\t2\ncd\tclip_2\tNo.\t2\n'
        files(tmp_path, {"train.tsv": table, "clips/clip_1.mp3": "", "clips/clip_2.mp3": ""})
        records = list(read_common_voice(tmp_path / "train.tsv"))
        assert records == [
            Record("clip_1", tmp_path / "clips/clip_1.mp3", '"Yes," he said.', "ab", "common_voice"),
            Record("clip_2", tmp_path / "clips/clip_2.mp3", "No.", "cd", "common_voice"),
        ]
        scored = read_references(tmp_path / "train.tsv", check_audio=True)
        assert [(r.audio_path, r.text, r.speaker) for r in scored] == [(r.audio, r.text, r.speaker) for r in records]

    def test_recordings_beside_the_table_go_before_those_in_clips(self, tmp_path):
        table = "client_id\tpath\tsentence\na\tx.mp3\tYes.\na\ty.mp3\tNo.\n"
        path = files(tmp_path, {"t.tsv": table, "x.mp3": "", "clips/x.mp3": "", "clips/y.mp3": ""}) / "t.tsv"
        expected = [tmp_path / "x.mp3", tmp_path / "clips/y.mp3"]
        assert [record.audio for record in read_common_voice(path)] == expected
        assert [reference.audio_path for reference in read_references(path, check_audio=True)] == expected

    @pytest.mark.parametrize(
        ("table", "message"),
        [
            ("client_id\tsentence\n", r"train\.tsv:1: the columns path are missing"),
            ("", "client_id, path, sentence are missing"),
            ("client_id\tpath\tsentence\na\t\tHi\n", r"train\.tsv:2: no path"),
            ("client_id\tpath\tsentence\n", r"train\.tsv: no utterance"),
            ("client_id\tpath\tsentence\na\tb.mp3\n", r"train\.tsv:2: not as many columns"),
        ],
    )
    def test_tables_without_the_columns_are_refused(self, tmp_path, table, message):
        with pytest.raises(CorpusError, match=message):
            list(read_common_voice(files(tmp_path, {"train.tsv": table}) / "train.tsv"))

    def test_a_missing_table_is_named(self, tmp_path):
        with pytest.raises(CorpusError, match="No such file"):
            list(read_common_voice(tmp_path / "dev.tsv"))


class TestNative:
    def test_lines_become_records_and_further_fields_stay(self, tmp_path):
        rows = [
            {"audio_filepath": "a/b.wav", "duration": 1.5, "text": "Yes", "speaker": "s", "corpus": "c", "lang": "en"},
            {"audio_filepath": "long.wav", "duration": 2, "text": "no", "offset": 3.25},
            {"audio_filepath": "c.wav", "offset": None, "duration": 0.5, "speaker": 1272},
        ]
        files(tmp_path, {"m.jsonl": "\n\n".join(map(json.dumps, rows))})
        first, second, third = read_native(tmp_path / "m.jsonl", corpus="other")
        assert first == Record("a/b.wav", tmp_path / "a/b.wav", "Yes", "s", "c", duration_s=1.5, extra={"lang": "en"})
        assert (second.corpus, second.offset_s, second.duration_s, second.segment) == ("other", 3.25, 2.0, True)
        assert (third.utterance_id, third.text, third.speaker, third.segment) == ("c.wav", "", "1272", False)

    def test_parts_late_in_a_long_recording_are_told_apart(self, tmp_path):
        rows = [{"audio_filepath": "a.wav", "duration": 1, "offset": begin} for begin in (12_345.67, 12_345.69)]
        files(tmp_path, {"m.jsonl": "\n".join(map(json.dumps, rows))})
        ids = [record.utterance_id for record in read_native(tmp_path / "m.jsonl")]
        assert ids == ["a.wav@12345.67", "a.wav@12345.69"]

    @pytest.mark.parametrize(
        "line",
        [
            "{",
            "[]",
            "{}",
            '{"audio_filepath": 1}',
            '{"audio_filepath": "a", "duration": "long"}',
            '{"audio_filepath": "a", "offset": -1}',
            '{"audio_filepath": "a", "duration": NaN}',
            '{"audio_filepath": "a", "text": 5}',
        ],
    )
    def test_a_line_that_is_none_is_named(self, tmp_path, line):
        files(tmp_path, {"m.jsonl": '{"audio_filepath": "a"}\n' + line})
        with pytest.raises(CorpusError, match=r"m\.jsonl:2"):
            list(read_native(tmp_path / "m.jsonl"))

    def test_all_lines_that_are_wrong_are_named_at_once(self, tmp_path):
        files(tmp_path, {"m.jsonl": '{\n{"audio_filepath": "a"}\n{"audio_filepath": "a", "duration": true}'})
        with pytest.raises(CorpusError, match=r"m\.jsonl:1: not JSON.*\n.*m\.jsonl:3: duration is True"):
            list(read_native(tmp_path / "m.jsonl"))


class TestLhotse:
    @pytest.fixture
    def lhotse(self):
        return pytest.importorskip("lhotse")

    @pytest.fixture
    def recording(self, lhotse, tmp_path):
        path = tmp_path / "audio" / "rec.wav"
        path.parent.mkdir()
        soundfile.write(path, np.zeros(48_000, np.float32), 16_000)
        return lhotse.Recording.from_file(path)

    def save(self, lhotse, cuts, folder: Path) -> Path:
        path = folder / "cuts.jsonl.gz"
        lhotse.CutSet.from_cuts(cuts).to_file(path)
        return path

    def supervision(self, lhotse, name: str, start: float, duration: float) -> object:
        return lhotse.SupervisionSegment(name, "rec", start, duration, text=name.upper(), speaker="anna")

    def test_a_whole_cut_a_part_and_several_supervisions(self, lhotse, recording, tmp_path):
        whole = lhotse.MonoCut("whole", 0, 3.0, 0, [self.supervision(lhotse, "all", 0, 3.0)], recording=recording)
        bare = lhotse.MonoCut("bare", 1.0, 0.5, 0, recording=recording)
        spoken = [self.supervision(lhotse, "x", 0.25, 0.5), self.supervision(lhotse, "y", 1.0, 0.75)]
        double = lhotse.MonoCut("double", 0.5, 2.0, 0, spoken, recording=recording)
        audio = Path(recording.sources[0].source)
        assert list(read_lhotse(self.save(lhotse, [whole, bare, double], tmp_path))) == [
            Record("all", audio, "ALL", "anna", "cuts", duration_s=3.0, named=True),
            Record("bare", audio, "", "", "cuts", offset_s=1.0, duration_s=0.5, segment=True, named=True),
            Record("x", audio, "X", "anna", "cuts", offset_s=0.75, duration_s=0.5, segment=True, named=True),
            Record("y", audio, "Y", "anna", "cuts", offset_s=1.5, duration_s=0.75, segment=True, named=True),
        ]

    def test_what_else_is_known_of_a_supervision_and_its_cut_stays(self, tmp_path):
        recording = {"id": "r", "sources": [{"type": "file", "channels": [0], "source": "r.wav"}], "duration": 2.0}
        said = {"id": "s", "start": 0.0, "duration": 2.0, "text": "one", "language": "en", "gender": "F"}
        said["custom"] = {"dialect": "north", "duration": 9.0, "text": "two", "offset": 1.0, "id": "t", "words": ["x"]}
        cut = {"id": "c", "start": 0.0, "duration": 2.0, "recording": recording, "custom": {"snr": 12.5}}
        files(tmp_path, {"cuts.jsonl": json.dumps(cut | {"supervisions": [said]})})
        (record,) = read_lhotse(tmp_path / "cuts.jsonl")
        assert dict(record.extra) == {"language": "en", "gender": "F", "dialect": "north", "snr": 12.5}
        row = manifest_row(Inspection(record, "one", Audio(32_000, 16_000, ""), ()), Path())
        assert row == {"id": "s", "audio_filepath": "r.wav", "duration": 2.0, "text": "one", "speaker": ""} | {
            "corpus": "cuts",
            **record.extra,
        }

    def test_cuts_that_are_no_plain_stretch_of_a_file_are_refused(self, lhotse, recording, tmp_path):
        plain = lhotse.MonoCut("plain", 0, 3.0, 0, recording=recording)
        for cut, message in [
            (plain.pad(duration=5.0), "MixedCut"),
            (plain.perturb_speed(1.1), "has transforms"),
            (lhotse.MonoCut("none", 0, 3.0, 0), "has no recording"),
        ]:
            with pytest.raises(CorpusError, match=message):
                list(read_lhotse(self.save(lhotse, [cut], tmp_path)))

    def test_a_file_that_is_no_cutset_is_refused(self, lhotse, tmp_path):
        path = tmp_path / "cuts.jsonl"
        path.write_text('{"a": 1}\n')
        with pytest.raises(CorpusError, match=r"cuts\.jsonl:1: the cut has no recording"):
            list(read_lhotse(path))
        path = tmp_path / "cuts.yaml"
        path.write_text("- a: 1\n")
        with pytest.raises(CorpusError, match=r"cuts\.yaml: not a CutSet"):
            list(read_lhotse(path))

    def test_without_the_package_the_remedy_is_named(self, monkeypatch, tmp_path):
        monkeypatch.setitem(sys.modules, "lhotse", None)
        with pytest.raises(CorpusError, match="pip install"):
            list(read_lhotse(tmp_path / "cuts.yaml"))

    def test_json_lines_need_no_package_that_other_kinds_need(self, lhotse, recording, tmp_path, monkeypatch):
        cut = lhotse.MonoCut("part", 1.0, 0.5, 0, [self.supervision(lhotse, "x", 0, 0.5)], recording=recording)
        lines = self.save(lhotse, [cut], tmp_path)
        yaml = tmp_path / "cuts.yaml"
        lhotse.CutSet.from_cuts([cut]).to_file(yaml)
        (by_package,) = read_lhotse(yaml)
        monkeypatch.setitem(sys.modules, "lhotse", None)
        assert list(read_lhotse(lines)) == [by_package]

    def test_relative_audio_is_below_the_root_that_is_given(self, tmp_path):
        recording = {"id": "r", "sources": [{"type": "file", "channels": [0], "source": "r.wav"}], "duration": 2.0}
        cut = {"id": "c", "start": 0.0, "duration": 2.0, "recording": recording, "type": "MonoCut"}
        files(tmp_path, {"cuts.jsonl": json.dumps(cut)})
        (record,) = read_lhotse(tmp_path / "cuts.jsonl", audio_root=Path("/root"))
        assert (record.audio, record.text, record.segment) == (Path("/root/r.wav"), "", False)
