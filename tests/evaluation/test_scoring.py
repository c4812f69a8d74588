from __future__ import annotations

import math

import pytest

from asr_service.errors import ConfigError
from asr_service.evaluation.bootstrap import wer_interval
from asr_service.evaluation.normalizer import Normalizer
from asr_service.evaluation.output import Output
from asr_service.evaluation.problems import ManifestProblems
from asr_service.evaluation.reference import Reference
from asr_service.evaluation.scoring import score
from asr_service.types import Word


def test_plain_texts_are_paired_by_their_order_and_numbered() -> None:
    evaluation = score(["the cat", "sat"], ["a cat", "sat down"])
    assert [utterance.reference.utterance_id for utterance in evaluation.utterances] == ["1", "2"]
    assert [utterance.alignment for utterance in evaluation.utterances] == ["SC", "CI"]
    assert (evaluation.wer, evaluation.ser) == (2 / 3, 1.0)
    assert evaluation.normalizer == "basic-1"


def test_the_corpus_rate_comes_from_summed_counts_and_not_from_a_mean_of_rates() -> None:
    evaluation = score(["a", "b c d e f g h i j"], ["x", "b c d e f g h i j"])
    assert evaluation.wer == 1 / 10
    assert (evaluation.words.reference_words, evaluation.words.errors) == (10, 1)


def test_the_interval_is_of_the_seed_and_the_draws_asked_for() -> None:
    said, heard = (["a " * (n % size + 1) for n in range(60)] for size in (7, 5))
    evaluation = score(said, heard, seed=3, samples=70)
    counts = [utterance.words for utterance in evaluation.utterances]
    errors, words = [count.errors for count in counts], [count.reference_words for count in counts]
    drawn = {
        (seed, samples): wer_interval(errors, words, [""] * 60, seed=seed, samples=samples)
        for seed in (0, 3)
        for samples in (70, 2000)
    }
    assert evaluation.wer_interval == drawn[3, 70]
    assert len({(interval.low, interval.high) for interval in drawn.values()}) == 4


def test_empty_references_count_insertions() -> None:
    evaluation = score(["", "one"], ["uh huh", "one"])
    assert (evaluation.words.insertions, evaluation.words.reference_words, evaluation.wer) == (2, 1, 2.0)


def test_characters_are_counted_with_their_spaces() -> None:
    evaluation = score(["a bc"], ["abc"])
    assert (evaluation.characters.deletions, evaluation.cer) == (1, 1 / 4)


def test_ids_pair_references_and_outputs_in_the_references_order() -> None:
    references = [Reference("b", "two"), Reference("a", "one")]
    evaluation = score(references, [Output("a", "one"), Output("b", "too")])
    assert [utterance.scored_hypothesis for utterance in evaluation.utterances] == ["too", "one"]


@pytest.mark.parametrize(
    ("references", "outputs", "problems"),
    [
        ([], [], ["the test set is empty: no reference"]),
        (["a"], [], ["1: a reference without an output"]),
        (["a"], ["a", "b"], ["1 references, but 2 plain texts to score: they pair by their order"]),
        (
            [Reference("a", "x"), Reference("b", "y"), Reference("a", "z")],
            [Output("a", "x"), Output("c", "x"), Output("c", "x"), Output("d", "x")],
            [
                "a: 2 times among the references",
                "c: 2 times among the outputs",
                "b: a reference without an output",
                "c: an output without a reference",
                "d: an output without a reference",
            ],
        ),
        (
            [Reference("clips/a.wav", "x"), Reference("clips/b.wav", "y")],
            [Output("a", "x"), Output("b", "y")],
            [
                (
                    "no id is among both: references have ids such as 'clips/a.wav', outputs such as 'a';"
                    " a reference's is its field `id`, or else its `audio_filepath`"
                )
            ],
        ),
    ],
)
def test_what_does_not_match_is_refused_with_the_whole_list(
    references: list, outputs: list, problems: list[str]
) -> None:
    with pytest.raises(ManifestProblems) as caught:
        score(references, outputs)
    assert list(caught.value.problems) == problems


def test_a_long_list_of_problems_is_shown_in_part_and_kept_whole() -> None:
    with pytest.raises(ManifestProblems, match="and 16 more problems") as caught:
        score([Reference(str(number), "x") for number in range(20)], [])
    assert len(caught.value.problems) == 21
    assert caught.value.problems[-1] == "20 of 20 references have no output"


def test_many_that_do_not_match_are_summed_up_at_the_end() -> None:
    references = [Reference(str(number), "x") for number in range(10)]
    with pytest.raises(ManifestProblems) as caught:
        score(references, [Output(str(number), "x") for number in range(4, 16)])
    assert list(caught.value.problems) == [
        *(f"{number}: a reference without an output" for number in range(4)),
        *(f"{number}: an output without a reference" for number in range(10, 16)),
        "6 of 12 outputs have no reference",
    ]


def test_a_score_always_names_its_normaliser() -> None:
    with pytest.raises(ConfigError, match="one of none, basic, english, librispeech"):
        score(["a"], ["a"], normalizer="")
    own = Normalizer("own", "7", str.swapcase)
    evaluation = score(["a"], ["A"], normalizer=own)
    assert (evaluation.normalizer, evaluation.utterances[0].scored_hypothesis) == ("own-7", "a")


def test_unknown_costs_are_refused() -> None:
    with pytest.raises(ValueError, match="costs must be"):
        score(["a"], ["a"], costs="cheap")


def test_times_and_confidences_that_are_none_are_refused_with_the_whole_list() -> None:
    words = (Word("a", math.nan, 1.0, 0.5), Word("b", 2.0, 1.0, 0.5), Word("c", 0.0, 1.0, math.nan))
    words += (Word("d", 0.0, 1.0, -0.1),)
    with pytest.raises(ManifestProblems) as caught:
        score([Reference("1", "a b c", offset_s=-1.0)], [Output("1", "a b c", words)])
    assert list(caught.value.problems) == [
        "1: offset is -1.0, not a number of seconds from 0 on",
        "1: the word a is from nan to 1.0 s",
        "1: the word b is from 2.0 to 1.0 s",
        "1: the confidence of c is nan, not from 0 to 1",
        "1: the confidence of d is -0.1, not from 0 to 1",
    ]


def test_a_notebook_shows_the_rate_its_interval_and_the_normaliser() -> None:
    shown = score(["the cat"], ["a cat"], system="<ours>")._repr_html_()
    assert "50.00 %" in shown
    assert "basic-1" in shown
    assert "&lt;ours&gt;" in shown
