"""Hypotheses that go on as one, come back in the n-best list, and say which words are sure."""

from __future__ import annotations

import dataclasses
import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from flashlight.lib.text.decoder import LMState
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asr_service.decoding import lexicon_beam
from asr_service.decoding.lexicon_beam import LexiconBeam, LexiconBeamOptions
from asr_service.decoding.pronunciation_tree import PronunciationTree
from asr_service.decoding.search_arrays import NODE, Candidates
from asr_service.decoding.timing import WordGraph, best_path
from asr_service.decoding.word_histories import NO_WORDS, WordHistories
from asr_service.lexicon import phone_ids
from tests.decoding import tiny


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return PronunciationTree(tiny.lexicon(), tiny.arpa(tmp_path_factory.mktemp("lm")))


def test_hypotheses_that_went_on_as_one_come_back_as_if_each_had_gone_on_alone(tree):
    """A bigram depends on one word: what the words before that are makes no difference to what follows."""
    short: list[float] = []
    for seed in range(20):
        log_probs = tiny.columns_of_words(tiny.random_log_probs(9, 40, seed))
        merged, alone = (
            LexiconBeam(tree, dataclasses.replace(tiny.EXHAUSTIVE, context_words=1)),
            LexiconBeam(tree, tiny.EXHAUSTIVE),
        )
        for beam in (merged, alone):
            beam.step(log_probs)
        found = {h.texts: h.score for h in merged.finish()}
        exact = {h.texts: h.score for h in alone.finish()}
        best, *others = exact.items()
        assert next(iter(found.items())) == best
        short += [score - found.get(texts, -np.inf) for texts, score in others if score > best[1] - 4.0]
    # Of one that was beaten several times on its way, the best alignment may be missed.
    assert len(short) > 100
    assert min(short) > -1e-4
    assert np.mean(np.array(short) < 1e-4) > 0.8
    assert np.mean(np.isfinite(short)) > 0.95


@pytest.mark.parametrize("other", ["S IY K AE AE AE T", "S IY IY IY K AE T"])
def test_where_words_are_fixed_nobody_goes_on_who_ended_the_word_before_or_after_that_place(tree, other):
    log_probs = np.full((10, 40), -9.0, dtype=np.float32)
    log_probs[7:, 0] = -0.1
    for labels, log_prob in (("S IY IY EH K AE T", -0.7), (other, -0.9)):
        for frame, label in enumerate(phone_ids(labels.split())):
            log_probs[frame, label] = max(log_prob, log_probs[frame, label])
    found = {}
    for max_frames in (1500, 9):
        beam = LexiconBeam(tree, LexiconBeamOptions(max_frames=max_frames, look_back=6, n_best_margin=100.0))
        beam.step(log_probs)
        assert beam._offset == (3 if max_frames == 9 else 0), "cut after the first word"
        found[max_frames] = {h.texts: h for h in beam.finish()}
    assert found[9]["see", "a", "cat"].words == found[1500]["see", "a", "cat"].words
    assert ("see", "cat") in found[1500]
    for texts, hypothesis in found[9].items():
        pronunciations = itertools.product(*[[phone_ids(p) for p in tiny.WORDS[word]] for word in texts])
        assert hypothesis.phone_ids in [tuple(itertools.chain(*phones)) for phones in pronunciations], texts


def test_a_phone_that_lasts_beyond_the_place_where_words_are_fixed_is_not_lost(tree):
    labels = phone_ids(["S"] * 12 + ["IY"] * 4)
    log_probs = np.full((len(labels), 40), -9.0, dtype=np.float32)
    log_probs[np.arange(len(labels)), labels] = -0.1
    beam = LexiconBeam(tree, LexiconBeamOptions(max_frames=9, look_back=6))
    beam.step(log_probs)
    assert 0 < beam._offset < 12
    assert beam.finish()[0].texts == ("see",)


def uncertain(tree, seed: int, max_frames: int, context_words: int) -> tuple[np.ndarray, LexiconBeam]:
    """Three words, six times over in noise, and a search that has heard them."""
    log_probs = np.concatenate([tiny.spoken("see a cat", seed + i, noise=2.5) for i in range(6)])
    options = LexiconBeamOptions(
        beam_size=60,
        log_add=False,
        max_frames=max_frames,
        look_back=20,
        context_words=context_words,
        n_best_margin=50.0,
    )
    beam = LexiconBeam(tree, options)
    beam.step(log_probs)
    return log_probs, beam


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), max_frames=st.sampled_from([60, 1500]), context_words=st.integers(1, 3))
@example(seed=141, max_frames=1500, context_words=1)
@example(seed=41, max_frames=60, context_words=2)
@example(seed=982, max_frames=60, context_words=3)
def test_every_hypothesis_is_an_alignment_of_its_own_words(tree, seed, max_frames, context_words):
    log_probs, beam = uncertain(tree, seed, max_frames, context_words)
    assert (beam._offset > 0) == (max_frames == 60)
    # Where the end cuts a word off for all hypotheses, it is left out of them, and its frames stay in their scores.
    whole = bool((beam._alive[:, NODE] == beam._root).any())
    found = beam.finish(30)
    # Where words are fixed, all others may be dropped; once in hundreds of times, see the next test.
    assert len({h.texts for h in found}) == len(found) > (0 if max_frames == 60 else 5)
    for hypothesis in found:
        pronunciations = [[phone_ids(p) for p in tiny.WORDS[word]] for word in hypothesis.texts]
        assert any(hypothesis.phone_ids == tuple(itertools.chain(*p)) for p in itertools.product(*pronunciations))
        starts = [word.start_frame for word in hypothesis.words]
        assert starts == sorted(starts)
        assert all(a.end_frame <= b.start_frame for a, b in itertools.pairwise(hypothesis.words))
        graph = WordGraph([[hypothesis.phone_ids]])
        path = best_path(log_probs, graph)
        best = float(sum(log_probs[t, graph.labels[state]] for t, state in enumerate(path)))
        assert hypothesis.acoustic_score <= best + 1e-3 or not whole


@pytest.mark.parametrize("context_words", [1, 2, 3])
def test_where_words_are_fixed_the_list_is_still_one_of_many(tree, context_words):
    assert all(len(uncertain(tree, seed, 60, context_words)[1].finish(30)) > 5 for seed in range(8))


def test_what_was_beaten_bounds_no_beam(tree):
    """However many old words were uncertain, the last ones are searched as if they alone were."""
    log_probs = np.concatenate([tiny.spoken("see a cat", seed, noise=3.0) for seed in range(10)])
    first = {}
    for context_words in (1, len(log_probs)):
        beam = LexiconBeam(tree, LexiconBeamOptions(beam_size=20, context_words=context_words))
        beam.step(log_probs)
        first[context_words] = {tuple(h.texts) for h in beam.finish(20)}
    assert len(first[1]) == 20 > len(first[len(log_probs)])


def test_what_was_beaten_must_start_with_the_first_words(tree):
    log_probs = np.concatenate([tiny.spoken("see a cat", seed, noise=3.0) for seed in range(4)])

    def found(first):
        beam = LexiconBeam(tree, LexiconBeamOptions(beam_size=40, context_words=1))
        beam.step(log_probs)
        return [h.texts for h in beam.finish(60, first)]

    everything = found(())
    first = everything[0][:4]
    same = found(first)
    assert same[0] == everything[0]
    assert sum(texts[:4] == first for texts in same) > sum(texts[:4] == first for texts in everything)
    assert found(("cats", "cats", "cats"))[0] == everything[0]


@pytest.mark.parametrize("seed", range(6))
def test_no_hypothesis_that_could_still_win_denies_a_word_that_is_sure(tree, seed):
    log_probs = np.concatenate([tiny.spoken("see a cat", 10 * seed + i, noise=2.5) for i in range(4)])
    sure = {}
    for margin in (1e-9, 2.0, 12.0, 1e9):
        beam = LexiconBeam(tree, LexiconBeamOptions(beam_size=80, sure_margin=margin, n_best_margin=100.0))
        assert beam.sure_words() == 0
        beam.step(log_probs)
        best = beam.best().texts
        sure[margin] = beam.sure_words()
        assert sure[margin] <= len(best)
        settled = beam.sure_words(len(best))
        assert settled == len(best)
        found = beam.finish(60)
        # The end of the sentence and the word that was begun change scores by some nepers.
        near = [h.texts for h in found if h.score > found[0].score - margin / 2]
        assert margin < 10 or all(texts[: sure[margin]] == best[: sure[margin]] for texts in near)
    counts = list(sure.values())
    assert counts == sorted(counts, reverse=True)
    assert counts[0] == len(best) > counts[-1]


def test_the_n_best_list_ends_where_hypotheses_are_too_far_behind(tree):
    log_probs = np.concatenate([tiny.spoken("see a cat", seed, noise=2.5) for seed in range(4)])
    scores = {}
    for margin in (1.5, 3.0, 1e6):
        beam = LexiconBeam(tree, LexiconBeamOptions(n_best_margin=margin, context_words=1))
        beam.step(log_probs)
        scores[margin] = [h.score for h in beam.finish()]
    everything = scores[1e6]
    for margin in (1.5, 3.0):
        assert scores[margin] == [score for score in everything if score >= everything[0] - margin]
    assert 0 < len(scores[1.5]) < len(scores[3.0]) < len(everything)


def test_histories_are_known_by_their_words_however_many_there_are_and_whatever_is_forgotten():
    histories = WordHistories(LMState(), lambda state, word: (LMState(), -1.0, float(-word)), context_words=2)
    first = [histories.after(NO_WORDS, word) for word in range(5000)]
    assert [histories.after(NO_WORDS, word) for word in range(5000)] == first
    assert len(set(first)) == len(histories) - 1 == 5000
    one, other, longer = (histories.after(first[a], b) for a, b in ((7, 3), (8, 3), (8, 4)))
    one, other, longer = histories.after(one, 5), histories.after(other, 5), histories.after(longer, 5)
    assert histories.contexts[one] == histories.contexts[other] != histories.contexts[longer]
    one, other, longer = histories.keep([one, other, longer])[[one, other, longer]].tolist()
    assert histories.after(histories.after(histories.after(NO_WORDS, 7), 3), 5) == one
    assert [histories.words(history) for history in (one, other, longer)] == [(7, 3, 5), (8, 3, 5), (8, 4, 5)]
    assert histories.contexts[one] == histories.contexts[other] != histories.contexts[longer]
    assert len(histories) == 1 + 2 + 3 + 3


def test_few_questions_at_once_and_a_crowded_table_change_nothing(tree, monkeypatch):
    log_probs = tiny.columns_of_words(tiny.random_log_probs(20, 40, seed=3))

    def found():
        beam = LexiconBeam(tree, LexiconBeamOptions(beam_size=60, beam_threshold=1e6, n_best_margin=50.0))
        beam.step(log_probs)
        return beam.best(), beam.finish(50)

    expected = found()
    assert len(expected[1]) > 10
    with monkeypatch.context() as patch:
        patch.setattr(lexicon_beam, "_QUESTIONS", 2)
        assert found() == expected
    crowded = Candidates.room_for(1024)._replace(stamps=np.zeros(128, dtype=np.int64))
    monkeypatch.setattr(lexicon_beam, "_shared_room", lambda count: crowded)
    assert found() == expected


def test_searches_of_two_threads_do_not_work_in_the_same_room():
    with ThreadPoolExecutor(1) as other:
        assert other.submit(lexicon_beam._shared_room, 1024).result() is not lexicon_beam._shared_room(1024)
    assert lexicon_beam._shared_room(1024) is lexicon_beam._shared_room(1024)
