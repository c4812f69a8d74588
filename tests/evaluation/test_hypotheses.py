from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_service.errors import ConfigError
from asr_service.evaluation.hypotheses import FORMATS, PREDICTION, _by_segment, format_of, read_outputs
from asr_service.evaluation.output import Output
from asr_service.evaluation.problems import ManifestProblems
from asr_service.evaluation.reference import Reference
from asr_service.evaluation.references import read_references
from asr_service.evaluation.references.rows import TEXT
from asr_service.evaluation.scoring import score
from asr_service.evaluation.store import save
from asr_service.types import Word

OUTPUTS = [
    Output("u1", "hello there", (Word("hello", 0.25, 0.5, 0.75), Word("there", 0.5, 1.0, 1.0))),
    Output("u2", ""),
]


def lines(path: Path, *rows: str) -> Path:
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    return path


def problems_of(path: Path) -> list[str]:
    with pytest.raises(ManifestProblems) as caught:
        read_outputs(path)
    return [problem.replace(f"{path.parent}/", "") for problem in caught.value.problems]


def write(folder: Path, name: str) -> Path:
    """OUTPUTS in that format, with words where it can carry them."""
    path = folder / name
    if name.endswith(".jsonl"):
        rows = [
            {
                "id": output.utterance_id,
                "text": "what was said",
                "hypothesis": output.text,
                "words": [
                    {"word": word.text, "start": word.start_s, "end": word.end_s, "confidence": word.confidence}
                    for word in output.words
                ],
            }
            for output in OUTPUTS
        ]
        return lines(path, *(json.dumps(row) for row in rows))
    if name.endswith((".csv", ".tsv")):
        separator = "," if name.endswith(".csv") else "\t"
        rows = [("utt", "pred_text"), *((output.utterance_id, output.text) for output in OUTPUTS)]
        return lines(path, *(separator.join(row) for row in rows))
    if name.endswith(".trn"):
        return lines(path, *(f"{output.text} ({output.utterance_id})" for output in OUTPUTS))
    if name.endswith(".json"):
        save(score(["hello there", ""], OUTPUTS_NUMBERED), path)
        return path
    return lines(path, *(f"{output.utterance_id} {output.text}" for output in OUTPUTS))


OUTPUTS_NUMBERED = [
    Output("1", OUTPUTS[0].text, OUTPUTS[0].words),
    Output("2", OUTPUTS[1].text),
]


@pytest.mark.parametrize("name", ["h.jsonl", "h.csv", "h.tsv", "h.trn", "text", "h.txt"])
def test_what_was_written_is_read_back(tmp_path: Path, name: str) -> None:
    expected = OUTPUTS if name == "h.jsonl" else [Output(output.utterance_id, output.text) for output in OUTPUTS]
    assert read_outputs(write(tmp_path, name)) == expected


def test_our_own_evaluation_is_scored_anew(tmp_path: Path) -> None:
    assert read_outputs(write(tmp_path, "evaluation.json")) == OUTPUTS_NUMBERED


def test_a_kaldi_directory_of_decoded_text_is_read(tmp_path: Path) -> None:
    lines(tmp_path / "text", "u1 hello there", "u2")
    assert read_outputs(tmp_path) == [Output("u1", "hello there"), Output("u2", "")]


def test_subtitles_are_the_output_of_one_long_recording(tmp_path: Path) -> None:
    path = lines(tmp_path / "talk.srt", "1", "00:00:01,000 --> 00:00:02,000", "Hello there")
    assert read_outputs(path) == [Output("talk", "Hello there")]


def test_a_ctm_keeps_times_and_confidences_where_every_word_has_them(tmp_path: Path) -> None:
    path = tmp_path / "h.ctm"
    (whole,) = read_outputs(lines(path, "u1 1 0.5 0.5 there 1", "u1 1 0.25 0.25 hello 0.75"))
    assert whole == OUTPUTS[0]
    (bare,) = read_outputs(lines(path, "u1 B 0.25 0.25 hello 0.75", "u1 B 0.5 0.5 there NA"))
    assert bare == Output("u1-B", "hello there")


def test_a_ctm_is_cut_into_the_segments_of_an_stm_and_no_word_is_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    references = read_references(
        lines(tmp_path / "r.stm", "talk 1 bob 5 8 good bye", "talk 1 ann 1 3 hello there", "talk 1 cyd 9 10 yes")
    )
    path = lines(
        tmp_path / "h.ctm",
        "talk 1 1.5 0.5 hello 0.5",
        "talk 1 2.8 0.3 there 0.5",  # its middle lies before the segment's end
        "talk 1 3.5 0.2 uh 0.5",  # between the segments, nearer to the first
        "talk 1 5.0 0.5 good 0.5",
        "talk 1 6.0 0.5 bye 0.5",
    )
    outputs = {output.utterance_id: output for output in read_outputs(path, references=references)}
    assert {name: output.text for name, output in outputs.items()} == {
        "talk-1-1-3": "hello there uh",
        "talk-1-5-8": "good bye",
        "talk-1-9-10": "",
    }
    assert outputs["talk-1-5-8"].words == (Word("good", 0.0, 0.5, 0.5), Word("bye", 1.0, 1.5, 0.5))
    assert "1 words lie in no segment" in caplog.text
    assert score(references, list(outputs.values())).words.errors == 2


def test_what_a_ctm_has_where_nothing_is_scored_counts_nowhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ignored = "ignore_time_segment_in_scoring"
    references = read_references(
        lines(
            tmp_path / "r.stm",
            f"talk 1 x 0 1 <o,,> {ignored}",
            "talk 1 ann 1 3 hello there",
            f"talk 1 x 3 6 {ignored}",
            "talk 1 bob 5 8 good bye",
            f"talk 2 x 8 9 {ignored}",
            f"room 1 x 0 9 {ignored}",
        )
    )
    spoken = [(0.2, "so"), (1.2, "hello"), (2.2, "there"), (4, "hm"), (5.2, "good"), (7, "bye"), (8.2, "bye")]
    channels = ("talk 2 8.2 0.5 noise 0.5", "room 1 1.0 0.5 noise 0.5", "room 1 2.0 0.5 noise 0.5")
    path = lines(tmp_path / "h.ctm", *channels, *(f"talk 1 {start_s} 0.5 {word} 0.5" for start_s, word in spoken))
    texts = {output.utterance_id: output.text for output in read_outputs(path, references=references)}
    assert texts == {"talk-1-1-3": "hello there", "talk-1-5-8": "good bye bye"}  # the last is of another channel's
    left_out = [text.split(": ")[1:] for text in caplog.messages if "are left out" in text and "words" in text]
    assert [(channel, words.split()[0]) for channel, words in left_out] == [("talk", "1"), ("room", "2"), ("talk", "2")]
    assert "1 words lie in no segment" in caplog.text


def test_a_word_is_of_the_segment_around_it_where_another_one_began_and_ended_within(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stm = (
        "talk 1 eve 0 0.8 well",
        "talk 1 ann 0 20 one two three four",
        "talk 1 ben 5 9 yes of course",
        "talk 1 cyd 6 7 of",
        "talk 1 dan 25 26 bye",
    )
    references = read_references(lines(tmp_path / "r.stm", *stm))
    words = ((0.1, "well"), (1, "one"), (3, "two"), (5.1, "yes"), (6.2, "of"), (8, "course"), (10, "three"))
    words += ((15, "four"), (25, "bye"))
    # In no segment: nearer to the end of the longest than to the next one, and after all of them.
    words += ((21, "uh"), (30, "hm"))
    path = lines(tmp_path / "h.ctm", *(f"talk 1 {start_s} 0.5 {word} 0.5" for start_s, word in words))
    found = {output.utterance_id: output.text for output in read_outputs(path, references=references)}
    assert found == {
        "talk-1-0-0.8": "well",
        "talk-1-0-20": "one two three four uh",
        "talk-1-5-9": "yes course",
        "talk-1-6-7": "of",
        "talk-1-25-26": "bye hm",
    }
    assert "2 words lie in no segment" in caplog.text


@given(
    segments=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 30)), min_size=1, max_size=12),
    middles=st.lists(st.integers(0, 70), min_size=1, max_size=12),
)
def test_a_word_goes_to_the_nearest_of_all_segments_and_of_several_to_the_one_that_began_last(
    segments: list[tuple[int, int]], middles: list[int]
) -> None:
    rows = [Reference(str(n), "", offset_s=begin, duration_s=long) for n, (begin, long) in enumerate(sorted(segments))]
    words = [(Word(str(n), middle - 0.25, middle + 0.25, 0.5), True) for n, middle in enumerate(middles)]

    def away_s(row: Reference, middle: float) -> float:
        assert row.duration_s is not None
        return max(row.offset_s - middle, middle - row.offset_s - row.duration_s, 0.0)

    taken = {
        word: row
        for row, output in zip(rows, _by_segment(words, rows, [], ""), strict=True)
        for word in output.text.split()
    }
    for number, middle in enumerate(middles):
        best = min((away_s(row, middle), -row.offset_s) for row in rows)
        row = taken[str(number)]
        assert (away_s(row, middle), -row.offset_s) == best


def test_hypotheses_say_all_that_is_wrong(tmp_path: Path) -> None:
    word = {"word": "a", "start": 0, "end": 1, "confidence": 0.5}
    rows = [
        {"id": "1"},
        {"text": "x"},
        {"id": "3", "text": "x", "words": "x y"},
        {"id": "3", "text": "x", "words": [1]},
        {"id": "5", "text": "a", "words": [word | {"start": float("nan")}]},
        {"id": "6", "text": "a", "words": [word | {"confidence": 2}]},
        {"id": "7", "text": "a", "words": [word | {"start": 2}]},
        {"id": "3", "text": "a", "words": [{"word": "a"}]},
    ]
    assert problems_of(lines(tmp_path / "h.jsonl", *(json.dumps(row) for row in rows))) == [
        f"h.jsonl:1: no hypothesis: none of the fields {', '.join(TEXT)}, or null",
        "h.jsonl:2: neither audio_filepath nor id",
        "h.jsonl:4: words must be a list of objects",
        "h.jsonl:5: a word's start is nan, not a number of seconds from 0 on",
        "h.jsonl:6: confidence is 2, not a number from 0 to 1",
        "h.jsonl:7: the word a ends before it begins",
        "h.jsonl: 3 stands there 2 times",
    ]


def test_what_was_said_is_no_hypothesis_where_the_file_has_predictions(tmp_path: Path) -> None:
    rows = [
        {"id": "1", "text": "the cat", "pred_text": "the hat"},
        {"id": "2", "text": "the cat", "pred_text": None},
        {"id": "3", "text": "the cat"},
        {"id": "4", "text": "the cat", "pred_text": ""},
    ]
    path = lines(tmp_path / "h.jsonl", *(json.dumps(row) for row in rows))
    missing = f"no hypothesis: none of the fields {', '.join(PREDICTION)}, or null"
    assert problems_of(path) == [f"h.jsonl:2: {missing}", f"h.jsonl:3: {missing}"]
    kept = lines(tmp_path / "k.jsonl", *(json.dumps(row) for row in (rows[0], rows[3])))
    assert read_outputs(kept) == [Output("1", "the hat"), Output("4", "")]


@pytest.mark.parametrize("name", ["h.jsonl.gz", "h.json.gz", "h.csv.gz"])
def test_what_was_written_is_read_back_packed(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, name.removesuffix(".gz"))
    packed = tmp_path / name
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert read_outputs(packed) == read_outputs(path)
    packed.write_bytes(packed.read_bytes()[:-9])
    with pytest.raises((ManifestProblems, ConfigError), match=r"h\.\w+\.gz: Compressed file ended"):
        read_outputs(packed, format=format_of(path))


@pytest.mark.parametrize(("suffix", "separator"), [("csv", ","), ("tsv", "\t")])
def test_a_table_without_the_columns_has_one_problem_and_not_one_a_row(
    tmp_path: Path, suffix: str, separator: str
) -> None:
    rows = [f"{number}{separator}x" for number in range(3)]
    no_text = lines(tmp_path / f"t.{suffix}", f"id{separator}words said", *rows)
    names = ", ".join((*PREDICTION, *TEXT))
    assert problems_of(no_text) == [f"t.{suffix}:1: no column for the hypothesis ({names}); there are id, words said"]
    (problem,) = problems_of(lines(tmp_path / f"i.{suffix}", f"number{separator}hyp", *rows))
    assert problem.startswith(f"i.{suffix}:1: no column for the id (id, ")
    assert problem.endswith("; there are number, hyp")


def test_a_file_without_hypotheses_or_of_no_known_format_is_refused(tmp_path: Path) -> None:
    assert problems_of(lines(tmp_path / "h.trn")) == ["h.trn: no hypothesis"]
    assert problems_of(tmp_path / "gone.ctm") == ["gone.ctm: No such file or directory"]
    for options in ({}, {"format": "docx"}):
        with pytest.raises(ConfigError, match=f"one of {', '.join(FORMATS)}"):
            read_outputs(lines(tmp_path / "h.docx", "x"), **options)


def test_json_lines_and_an_evaluation_are_told_apart_by_what_they_hold(tmp_path: Path) -> None:
    assert format_of(lines(tmp_path / "a.json", '{"id": "1", "text": "x"}')) == "jsonl"
    assert format_of(lines(tmp_path / "b.json", '{"schema_version": 1, "results": []}')) == "evaluation"
    assert format_of(lines(tmp_path / "c.json", "{", '"schema_version": 1')) == "evaluation"
    assert format_of(lines(tmp_path / "d.json", "{broken")) == "jsonl"


def test_words_with_times_against_segments_give_the_counts_of_the_real_sclite(tmp_path: Path) -> None:
    golden = json.loads(Path(__file__).with_name("golden").joinpath("sclite.json").read_text(encoding="utf-8"))
    references = read_references(lines(tmp_path / "r.stm", *golden["stm"]))
    outputs = read_outputs(lines(tmp_path / "h.ctm", *golden["ctm"]), references=references)
    evaluation = score(references, outputs, costs="sclite")
    rows: dict[str, list[int]] = {}
    for utterance in evaluation.utterances:
        counts = utterance.words
        correct = counts.reference_words - counts.substitutions - counts.deletions
        wrong = [counts.substitutions, counts.deletions, counts.insertions, counts.errors, int(counts.errors > 0)]
        for name in (utterance.reference.speaker, "Sum"):
            row = [1, counts.reference_words, correct, *wrong]
            rows[name] = [old + new for old, new in zip(rows.get(name, [0] * 8), row, strict=True)]
    assert rows == golden["segment_counts"]
