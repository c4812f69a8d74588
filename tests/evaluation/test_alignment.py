from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import jiwer
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_service.evaluation import sclite_costs
from asr_service.evaluation.alignment import align, aligned_words
from asr_service.evaluation.output import Output
from asr_service.evaluation.reference import Reference
from asr_service.evaluation.scoring import score
from asr_service.evaluation.wer import WordErrors, count_characters, count_words

GOLDEN = json.loads(Path(__file__).with_name("golden").joinpath("sclite.json").read_text(encoding="utf-8"))
PAIRS_AN_EXAMPLE = 200
Pair = tuple[list[str], list[str]]


def random_pairs(seed: int, count: int = PAIRS_AN_EXAMPLE) -> list[Pair]:
    """Few words and short sentences, so that ties, empty sides and repeats are common."""
    generator = random.Random(seed)
    words = [["a", "b"], ["a", "b", "c", "d", "e"], [f"w{number}" for number in range(50)]]
    pairs = []
    for _ in range(count):
        chosen = generator.choice(words)
        reference = [generator.choice(chosen) for _ in range(generator.randint(0, 12))]
        copied = [word for word in reference if generator.random() < 0.8] if generator.random() < 0.5 else []
        pairs.append((reference, copied + [generator.choice(chosen) for _ in range(generator.randint(0, 5))]))
    return pairs


def weight(operations: str) -> int:
    return 4 * operations.count("S") + 3 * (operations.count("D") + operations.count("I"))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32))
def test_total_errors_equal_those_of_jiwer_and_meeteval_on_ten_thousand_pairs(seed: int) -> None:
    wer = pytest.importorskip("meeteval.wer")
    pairs = random_pairs(seed)
    texts = [" ".join(reference) for reference, _ in pairs], [" ".join(hypothesis) for _, hypothesis in pairs]
    counted = [count_words(operations) for operations in align(pairs)]
    theirs = jiwer.process_words(*texts)
    total = sum(ours.errors for ours in counted)
    assert total == theirs.substitutions + theirs.deletions + theirs.insertions
    for (reference, hypothesis), ours in zip(pairs, counted, strict=True):
        meeteval = wer.siso_word_error_rate(" ".join(reference), " ".join(hypothesis))
        assert (ours.errors, ours.reference_words) == (meeteval.errors, meeteval.length)
        # Only ties may be told apart differently: what differs is the same on both sides.
        assert ours.deletions - ours.insertions == meeteval.deletions - meeteval.insertions


@pytest.mark.parametrize("costs", ["equal", "sclite"])
def test_an_alignment_tells_what_became_of_every_word(costs: str) -> None:
    pairs = random_pairs(7)
    for (reference, hypothesis), operations in zip(pairs, align(pairs, costs), strict=True):
        words = list(aligned_words(reference, hypothesis, operations))
        assert [word.reference for word in words if word.reference is not None] == reference
        assert [word.hypothesis for word in words if word.hypothesis is not None] == hypothesis
        for word in words:
            assert (word.operation == "C") == (word.reference == word.hypothesis)
            assert (word.operation == "I") == (word.reference is None)
            assert (word.operation == "D") == (word.hypothesis is None)


@given(st.lists(st.tuples(st.text("abc ", max_size=12), st.text("abc ", max_size=12)), max_size=20))
def test_characters_are_counted_as_jiwer_counts_them(texts: list[tuple[str, str]]) -> None:
    for reference, hypothesis in texts:
        said, heard = reference.strip(), hypothesis.strip()
        theirs = jiwer.process_characters(said, heard)
        expected = WordErrors(theirs.substitutions, theirs.deletions, theirs.insertions, len(said))
        assert count_characters(said, heard) == expected


def test_sclite_costs_give_the_counts_of_the_real_sclite_for_every_utterance() -> None:
    rows = GOLDEN["utterances"]
    alignments = align([(row["reference"].split(), row["hypothesis"].split()) for row in rows], "sclite")
    ours = {row["id"]: [found.count(letter) for letter in "CSDI"] for row, found in zip(rows, alignments, strict=True)}
    assert ours == {row["id"]: row["counts"] for row in rows}


def test_sclite_costs_give_the_speaker_table_of_the_real_sclite() -> None:
    references = [Reference(row["id"], row["reference"], speaker=row["id"][:3]) for row in GOLDEN["utterances"]]
    outputs = [Output(row["id"], row["hypothesis"]) for row in GOLDEN["utterances"]]
    by_speaker = {
        speaker: score([references[index] for index in rows], [outputs[index] for index in rows], costs="sclite")
        for speaker in sorted({reference.speaker for reference in references})
        if (rows := [index for index, reference in enumerate(references) if reference.speaker == speaker])
    }
    everyone = score(references, outputs, costs="sclite")
    for golden, whole in (("speaker_counts", "Sum"), ("speaker_percentages", "Sum/Avg")):
        assert GOLDEN[golden].keys() == {*by_speaker, whole}
        for speaker, evaluation in [*by_speaker.items(), (whole, everyone)]:
            counts, sentences = evaluation.words, len(evaluation.utterances)
            correct = counts.reference_words - counts.substitutions - counts.deletions
            row = np.array([correct, counts.substitutions, counts.deletions, counts.insertions, counts.errors])
            wrong = round(evaluation.ser * sentences)
            head = [sentences, counts.reference_words]
            if golden == "speaker_counts":
                assert GOLDEN[golden][speaker] == [*head, *row, wrong]
            else:
                percentages = [*(100 * row / counts.reference_words), 100 * evaluation.ser]
                assert GOLDEN[golden][speaker][:2] == head
                assert GOLDEN[golden][speaker][2:] == pytest.approx(percentages, abs=0.05 + 1e-9)


def cheapest(reference: list[str], hypothesis: list[str]) -> int:
    """The textbook table, cell by cell."""
    cost = {(row, 0): 3 * row for row in range(len(reference) + 1)}
    cost |= {(0, column): 3 * column for column in range(len(hypothesis) + 1)}
    for row, column in itertools.product(range(len(reference)), range(len(hypothesis))):
        cost[row + 1, column + 1] = min(
            cost[row, column] + 4 * (reference[row] != hypothesis[column]),
            cost[row, column + 1] + 3,
            cost[row + 1, column] + 3,
        )
    return cost[len(reference), len(hypothesis)]


def test_sclite_costs_find_the_cheapest_alignment() -> None:
    pairs = random_pairs(3, 300)
    found = align(pairs, "sclite")
    assert [weight(operations) for operations in found] == [cheapest(*pair) for pair in pairs]


def test_an_alignment_is_the_same_alone_in_a_batch_and_in_blocks_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = random_pairs(11, 100)
    together = align(pairs, "sclite")
    assert [align([pair], "sclite")[0] for pair in pairs] == together
    monkeypatch.setattr(sclite_costs, "BATCH_CELLS", 20)
    assert align(pairs, "sclite") == together


def test_a_long_utterance_is_aligned_without_a_table_of_all_its_cells() -> None:
    words = [f"w{number % 97}" for number in range(1500)]
    heard = [word for number, word in enumerate(words) if number % 50]
    (operations,) = align([(words, heard)], "sclite")
    assert (operations.count("D"), operations.count("C")) == (30, 1470)


def test_nothing_against_nothing_is_an_empty_alignment() -> None:
    assert align([([], []), ([], ["a"]), (["a"], [])]) == ["", "I", "D"]
    assert align([([], []), ([], ["a"]), (["a"], [])], "sclite") == ["", "I", "D"]
    assert align([]) == align([], "sclite") == []
