"""Evaluations in JSON: the schema holds, a file reads back as it was, and one that was changed is refused."""

import dataclasses
import json
import math

import jsonschema
import pytest

from asr_service.errors import ConfigError
from asr_service.evaluation.problems import ManifestProblems
from asr_service.evaluation.reference import Reference
from asr_service.evaluation.scoring import score
from asr_service.evaluation.store import SCHEMA_PATH, load, save
from tests.evaluation.made_up import evaluation

SCHEMA = json.loads(SCHEMA_PATH.read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "evaluation.json"


def document(evaluation, path):
    save(evaluation, path)
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_what_is_written_validates_and_reads_back_as_it_was(path):
    one = evaluation(30)
    VALIDATOR.validate(document(one, path))
    assert load(path) == one


def test_the_figures_are_at_the_top(path):
    one = evaluation(30)
    written = document(one, path)
    assert written["wer"] == one.wer == one.words.errors / one.words.reference_words
    assert written["wer_ci95"] == [one.wer_interval.low, one.wer_interval.high]
    assert (written["cer"], written["ser"]) == (one.cer, one.ser)
    assert [written[name] for name in ("substitutions", "deletions", "insertions", "reference_words")] == [
        one.words.substitutions,
        one.words.deletions,
        one.words.insertions,
        one.words.reference_words,
    ]
    assert (written["utterances"], written["normalizer"]) == (30, "basic-1")
    timings = [row.output.timing for row in one.utterances]
    assert written["rtfx"] == pytest.approx(sum(t.audio_s for t in timings) / sum(t.processing_s for t in timings))
    assert written["about"] == {
        "model_hash": "ab12",
        "command": "asr eval",
        "machine": None,
        "commit": None,
        "date": None,
    }


@pytest.mark.parametrize(
    ("said", "heard"),
    [(["", "a b"], ["", "a b"]), ([""], ["uh"]), ([""], [""]), (["naïve — ‘x’ 文"], ["\u2028 </script>"])],
    ids=["empty reference", "only insertions", "nothing at all", "unicode"],
)
@pytest.mark.parametrize("normalizer", ["none", "basic"])
def test_edge_cases_validate_and_read_back(said, heard, normalizer, path):
    one = score(said, heard, normalizer=normalizer)
    written = document(one, path)
    VALIDATOR.validate(written)
    assert load(path) == one
    assert (written["wer"] is None) == math.isinf(one.wer)
    assert (written["wer_ci95"] is None) == (one.words.reference_words == 0 or len(said) == 1)
    assert written["rtfx"] is None and written["latency"] is None


def test_one_utterance_has_no_interval_in_files_of_before_either(path):
    one = evaluation(1)
    written = document(one, path)
    VALIDATOR.validate(written)
    assert (written["wer_ci95"], written["wer_interval"]["over"]) == (None, "nothing")
    assert load(path) == one and not one.wer_interval.exists
    written["wer_interval"]["over"], written["wer_ci95"] = "utterances", [one.wer, one.wer]
    path.write_text(json.dumps(written))
    assert load(path) == one


def test_an_interval_of_another_level_still_gives_the_95_percent_one(path):
    rows = evaluation(30).utterances
    one = score([row.reference for row in rows], [row.output for row in rows], seed=3, samples=200)
    wide = dataclasses.replace(one, wer_interval=dataclasses.replace(one.wer_interval, level=0.5, low=0.1, high=0.2))
    assert document(wide, path)["wer_ci95"] == [one.wer_interval.low, one.wer_interval.high]
    assert load(path) == wide


def test_times_that_are_not_finite_are_refused_and_nothing_is_written(path):
    row = evaluation(1).utterances[0]
    timing = dataclasses.replace(row.output.timing, word_latencies_s=(0.1, math.nan))
    rows = (dataclasses.replace(row, output=dataclasses.replace(row.output, timing=timing)),)
    with pytest.raises(ManifestProblems, match=r"set/00000.flac: nan"):
        save(dataclasses.replace(evaluation(1), utterances=rows), path)
    assert not path.exists()


def test_confidences_and_fields_that_are_not_finite_are_refused_too(path):
    row = evaluation(1).utterances[0]
    word = dataclasses.replace(row.output.words[0], confidence=math.inf)
    for broken in (
        dataclasses.replace(row, output=dataclasses.replace(row.output, words=(word, *row.output.words[1:]))),
        dataclasses.replace(row, reference=dataclasses.replace(row.reference, fields={"snr_db": math.inf})),
    ):
        with pytest.raises(ManifestProblems, match=r"set/00000.flac: inf among its times, confidences or fields"):
            save(dataclasses.replace(evaluation(1), utterances=(broken,)), path)
    assert not path.exists()


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_a_constant_that_is_no_json_is_refused_wherever_it_stands(constant, path):
    save(evaluation(2), path)
    content = path.read_text()
    path.write_text(content.replace('"take":0', f'"take":{constant}', 1))
    assert path.read_text() != content
    with pytest.raises(ConfigError, match=f"not JSON: {constant} is no JSON number"):
        load(path)


def test_every_field_is_needed_by_the_schema_and_by_the_reader(path):
    written = document(evaluation(2), path)
    places = [written, written["wer_interval"], written["latency"], written["results"][1]]
    places.append(written["results"][1]["timing"])
    for place in places:
        for name in list(place):
            kept = place.pop(name)
            assert not VALIDATOR.is_valid(written), name
            path.write_text(json.dumps(written))
            with pytest.raises(ManifestProblems, match=name):
                load(path)
            place[name] = kept


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(schema_version=2), "schema_version must be 1, not 2"),
        (lambda d: d.update(wer=0.0), "wer is 0.0, the results say"),
        (lambda d: d.update(normalizer=""), "normalizer must not be empty"),
        (lambda d: d["results"].pop(), "wer is 0.1, the results say 0.0"),
        (lambda d: d["results"].append(d["results"][0]), "set/00000.flac stands there 2 times"),
        (lambda d: d["results"][1].update(alignment="C"), r"results\[1\]: alignment does not have the lengths"),
        (lambda d: d["results"][1].update(errors=99), r"results\[1\]: errors and reference_words"),
        (lambda d: d["results"][1].update(id=7), r"results\[1\]: id must be a text"),
        (lambda d: d["results"][1].update(words=[["a", 1, 2]]), r"results\[1\]: words must be"),
        (lambda d: d["results"][1]["timing"].update(final_s="soon"), r"final_s must be a number"),
        (lambda d: d["results"].insert(0, 5), r"results\[0\]: must be an object"),
        (lambda d: d["about"].update(date=5), "about.date must be a text"),
        (lambda d: d["wer_interval"].update(over="nothing"), "over nothing, but there are several utterances"),
    ],
)
def test_what_was_changed_is_refused_with_the_place(change, message, path):
    written = document(evaluation(3), path)
    change(written)
    path.write_text(json.dumps(written))
    with pytest.raises(ManifestProblems, match=message):
        load(path)


def test_an_alignment_that_calls_different_words_equal_is_refused(path):
    written = document(score(["a b"], ["a c"]), path)
    written["results"][0].update(alignment="CC", errors=0)
    path.write_text(json.dumps(written))
    with pytest.raises(ManifestProblems, match="alignment calls 'b' and 'c' C"):
        load(path)


def test_all_problems_are_listed(path):
    written = document(evaluation(5), path)
    for row in written["results"][1:4]:
        row["errors"] = -1
    path.write_text(json.dumps(written))
    with pytest.raises(ManifestProblems) as raised:
        load(path)
    assert len(raised.value.problems) == 3


@pytest.mark.parametrize("content", ["", "[1]", '{"wer": NaN}', '{"summary": {}}', "\x00"])
def test_other_files_are_refused(content, path):
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"evaluation\.json"):
        load(path)


def test_missing_files_and_folders_are_said(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "absent.json")
    with pytest.raises(ConfigError, match="cannot write"):
        save(score([Reference("a", "b")], ["b"]), tmp_path / "absent" / "x.json")
