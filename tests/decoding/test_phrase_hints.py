"""Phrase hints: what they are worth in a ranking and in the lexicon beam, and that they stay with their stream."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from asr_service.decoding.hinted_tree import MAX_PRONUNCIATIONS, HintedTree
from asr_service.decoding.hypothesis import BeamHypothesis
from asr_service.decoding.language_model import LN10
from asr_service.decoding.lexicon_beam import LexiconBeam, LexiconBeamOptions
from asr_service.decoding.phrase_hints import PhraseHints
from asr_service.decoding.pronunciation_tree import PronunciationTree
from asr_service.lexicon import phone_ids
from asr_service.types import PhraseHint
from tests.decoding import tiny


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> PronunciationTree:
    return PronunciationTree(tiny.lexicon(), tiny.arpa(tmp_path_factory.mktemp("lm")))


def hints(**boosts: float) -> PhraseHints:
    return PhraseHints([PhraseHint(phrase.replace("_", " "), boost) for phrase, boost in boosts.items()])


def hinted_beam(tree: PronunciationTree, options: LexiconBeamOptions, **boosts: float) -> LexiconBeam:
    return LexiconBeam(tree, options, HintedTree(tree, tiny.lexicon(), hints(**boosts), options.lm_weight))


@pytest.mark.parametrize(
    ("text", "worth"),
    [
        ("", 0.0),
        ("see a dog", 0.0),
        ("see a cat", 5.0),
        ("a cat", 2.0),
        ("a cat see a cat a cat", 9.0),  # the longest phrase at each place; what it took is not counted again
        ("see a see a cat", 5.0),
        ("cats", 0.0),
    ],
)
def test_a_ranking_counts_the_longest_phrase_at_each_place(text: str, worth: float) -> None:
    assert hints(see_a_cat=5.0, a_cat=2.0).score(text.split()) == worth


def test_of_phrases_that_overlap_the_one_that_begins_first_counts_however_long_and_large_the_other() -> None:
    assert hints(new_york=1.0, york_city_hall=2.0).score(["new", "york", "city", "hall"]) == 1.0


def test_of_a_phrase_that_comes_twice_the_larger_boost_counts() -> None:
    twice = PhraseHints([PhraseHint("cat", 3.0), PhraseHint("cat", 1.0), PhraseHint("sea", 0.0)])
    assert twice.boosts == {("cat",): 3.0}


@pytest.mark.parametrize("seed", range(10))
def test_a_wide_beam_adds_each_expected_words_boost_to_what_it_finds_without(tree, seed) -> None:
    boosts = {"cats": 2.5, "sea": 1.5, "a": 0.7}
    plain, hinted = LexiconBeam(tree, tiny.EXHAUSTIVE), hinted_beam(tree, tiny.EXHAUSTIVE, **boosts)
    log_probs = tiny.random_log_probs(7, 40, seed)
    for beam in (plain, hinted):
        beam.step(log_probs)
    before = {hypothesis.texts: hypothesis.score for hypothesis in plain.finish()}
    gains = [
        hypothesis.score - before[hypothesis.texts] - sum(boosts.get(word, 0.0) for word in hypothesis.texts)
        for hypothesis in hinted.finish()
        if hypothesis.texts in before
    ]
    assert len(gains) > 50
    assert gains == pytest.approx([0.0] * len(gains), abs=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_a_wide_beam_adds_a_phrases_boost_once_and_counts_each_of_its_words(tree, seed) -> None:
    plain, hinted = LexiconBeam(tree, tiny.EXHAUSTIVE), hinted_beam(tree, tiny.EXHAUSTIVE, sea_a=9.0)
    log_probs = tiny.random_log_probs(7, 40, seed)
    for beam in (plain, hinted):
        beam.step(log_probs)
    before = {hypothesis.texts: hypothesis for hypothesis in plain.finish()}
    after: dict[tuple[str, ...], BeamHypothesis] = {}
    for hypothesis in hinted.finish():
        after.setdefault(hypothesis.texts, hypothesis)
    times = {texts: list(itertools.pairwise(texts)).count(("sea", "a")) for texts in before.keys() & after.keys()}
    assert max(times.values()) > 0 == min(times.values())
    for texts, count in times.items():
        assert after[texts].score - before[texts].score == pytest.approx(9.0 * count, abs=1e-3)
        assert after[texts].acoustic_score - before[texts].acoustic_score == pytest.approx(9.0 * count, abs=1e-3)
        assert after[texts].lm_score == pytest.approx(before[texts].lm_score, abs=1e-3)


def test_on_its_way_a_phrase_looks_ahead_by_the_n_gram_of_the_words_begun_and_its_share_of_the_boost(tree) -> None:
    guesses = {"zat": (("Z", "AE", "T"),)}
    hinted = HintedTree(tree, tiny.lexicon(), hints(zat_see=10.0), 0.5, lambda word: guesses.get(word, ()))
    arrays, node, ahead = hinted.arrays, hinted.root, []
    for phone in phone_ids(("Z", "AE", "T", "S", "IY")):
        children = arrays.child[arrays.first_child[node] : arrays.first_child[node + 1]]
        (node,) = children[arrays.phone[children] == phone].tolist()
        ahead.append(float(arrays.ahead[node]))
    unknown, see = -3.0, -0.7
    words_begun = [unknown, unknown, unknown, unknown + see, unknown + see]
    expected = [0.5 * LN10 * words + 2.0 * heard for heard, words in enumerate(words_begun, 1)]
    assert ahead == pytest.approx(expected, abs=1e-4)
    assert arrays.word_ahead[arrays.word == next(iter(hinted.boosts))].tolist() == pytest.approx(
        expected[-1:], abs=1e-4
    )


def test_expected_homophones_win_and_others_do_not_change(tree) -> None:
    log_probs = tiny.spoken("see a cat", seed=1)
    for boosts, first in (({}, "see"), ({"cat": 9.0}, "see"), ({"sea": 9.0}, "sea")):
        beam = hinted_beam(tree, tiny.EXHAUSTIVE, **boosts)
        beam.step(log_probs)
        assert beam.finish()[0].texts == (first, "a", "cat")


def test_a_phrase_comes_word_by_word_with_its_phones_and_times(tree) -> None:
    log_probs = tiny.spoken("see a cat", seed=1)
    plain, hinted = LexiconBeam(tree, tiny.EXHAUSTIVE), hinted_beam(tree, tiny.EXHAUSTIVE, sea_a_cat=20.0)
    for beam in (plain, hinted):
        beam.step(log_probs)
    assert hinted.best().texts == ("sea", "a", "cat")
    best, same = hinted.finish()[0], plain.finish()[0]
    assert best.texts == ("sea", "a", "cat")
    assert best.phone_ids == same.phone_ids
    for word, other in zip(best.words, same.words, strict=True):
        assert word.start_frame == other.start_frame
        assert word.end_frame >= other.end_frame
        assert word.end_frame > word.start_frame


def test_streams_share_the_tree_and_not_each_others_hints(tree) -> None:
    log_probs = [tiny.random_log_probs(30, 40, seed) for seed in range(5)]

    def answers(beam: LexiconBeam) -> list:
        found = []
        for frames in log_probs:
            beam.begin()
            beam.step(frames)
            found.append(beam.finish())
        return found

    options = dataclasses.replace(tiny.EXHAUSTIVE, beam_size=50, beam_size_token=10)
    before = answers(LexiconBeam(tree, options))
    neighbour = LexiconBeam(tree, options)
    expecting = hinted_beam(tree, options, cats=12.0, sea_a_cat=15.0, a=3.0)
    assert answers(expecting) != before
    assert answers(neighbour) == before
    assert answers(LexiconBeam(tree, options)) == before
    assert answers(hinted_beam(tree, options)) == before


def test_any_split_of_the_frames_gives_the_same_with_hints(tree) -> None:
    options = dataclasses.replace(tiny.EXHAUSTIVE, beam_size=30, beam_size_token=6, max_frames=130, look_back=20)
    log_probs = np.concatenate([tiny.spoken("see a cat sea a cats", seed) for seed in range(12)])
    whole, split = (hinted_beam(tree, options, a_cat=3.0, sea=2.0) for _ in range(2))
    whole.step(log_probs)
    for begin in range(0, len(log_probs), 7):
        split.step(log_probs[begin : begin + 7])
    assert len(log_probs) > options.max_frames
    assert whole.finish() == split.finish()


def test_phrases_with_words_that_nobody_can_pronounce_are_told(tree) -> None:
    hinted = HintedTree(tree, tiny.lexicon(), hints(see_kato=3.0, cat=3.0), 0.8)
    assert hinted.unheard == (("see", "kato"),)


def test_a_word_that_no_lexicon_has_is_heard_by_its_guessed_pronunciations_alone_and_in_a_phrase(tree) -> None:
    log_probs = tiny.spoken("see a cat", seed=1)
    guesses = {"kat": (("G", "AE", "T"), ("K", "AE", "T")), "eigh": (("EH",),)}
    for expected, words in (
        ({"kat": 20.0}, ("see", "a", "kat")),
        ({"eigh_kat": 25.0}, ("see", "eigh", "kat")),
        ({"a_kat": 25.0, "kat": 20.0}, ("see", "a", "kat")),
        ({"kit": 20.0}, ("see", "a", "cat")),
    ):
        beam = LexiconBeam(
            tree,
            tiny.EXHAUSTIVE,
            HintedTree(
                tree, tiny.lexicon(), hints(**expected), tiny.EXHAUSTIVE.lm_weight, lambda word: guesses.get(word, ())
            ),
        )
        beam.step(log_probs)
        best = beam.finish()[0]
        assert best.texts == words
        assert all(word.start_frame < word.end_frame for word in best.words)
        assert [word.start_frame for word in best.words] == sorted(word.start_frame for word in best.words)


def test_of_a_phrases_pronunciations_no_more_are_looked_for_than_promised(tree) -> None:
    hinted = HintedTree(tree, tiny.lexicon(), hints(a_a_a=3.0), 0.8)
    (label,) = hinted.boosts
    assert hinted.texts(label) == ("a", "a", "a")
    assert int((hinted.arrays.word == label).sum()) == MAX_PRONUNCIATIONS < 2**3


def test_an_expected_word_leaves_its_homophones_in_the_tree(tree) -> None:
    beam = hinted_beam(tree, tiny.EXHAUSTIVE, sea=0.1)
    beam.step(tiny.spoken("see a cat", seed=1))
    assert beam.finish()[0].texts == ("see", "a", "cat")
