"""Forced alignment against every possible labelling of the frames."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from asr_service.decoding.timing import WordGraph, align_words, best_path
from asr_service.lexicon import phone_ids
from tests.decoding import tiny
from training.likelihoods import words_log_likelihood


def ids(phones):
    return phone_ids(phones.split())


def collapse(labels):
    return tuple(label for label, _ in itertools.groupby(labels) if label)


def all_alignments(log_probs, sequences):
    """Score of every labelling of the frames that collapses to one of `sequences`."""
    frames, size = log_probs.shape
    return [
        sum(float(log_probs[t, label]) for t, label in enumerate(labels))
        for labels in itertools.product(range(size), repeat=frames)
        if collapse(labels) in sequences
    ]


WORD_SETS = [
    [[[1, 2]], [[3]]],
    [[[1, 2], [2]], [[3, 1]]],
    [[[1, 1]], [[1]]],
    [[[2]], [[2]], [[2]]],
    [],
]


@pytest.mark.parametrize("words", WORD_SETS)
@pytest.mark.parametrize("frames", [1, 4, 6])
def test_best_path_and_likelihood_equal_those_over_all_labellings(words, frames):
    log_probs = tiny.random_log_probs(frames, 4, seed=frames)
    graph = WordGraph(words)
    sequences = {tuple(itertools.chain(*choice)) for choice in itertools.product(*words)}
    scores = all_alignments(log_probs, sequences)
    path = best_path(log_probs, graph)
    if not scores:
        assert path is None
        assert words_log_likelihood(log_probs, graph) == -np.inf
        return
    assert path is not None
    assert sum(log_probs[t, graph.labels[s]] for t, s in enumerate(path)) == pytest.approx(max(scores), abs=1e-4)
    assert words_log_likelihood(log_probs, graph) == pytest.approx(np.logaddexp.reduce(scores), abs=1e-4)


def test_words_get_the_frames_in_which_they_are_spoken():
    log_probs = np.full((12, 40), -9.0, dtype=np.float32)
    labels = [0, *ids("S IY IY"), 0, 0, *ids("EH"), 0, 0, *ids("K AE T")]
    log_probs[np.arange(12), labels] = -0.1
    placed = align_words(log_probs, ["see", "a", "cat"], tiny.lexicon())
    assert placed is not None
    assert [(w.text, w.start_frame, w.end_frame) for w in placed] == [("see", 1, 4), ("a", 6, 7), ("cat", 9, 12)]


def test_a_word_outside_the_lexicon_takes_the_frames_the_others_leave():
    log_probs = tiny.spoken("see cats a", seed=0)
    known = align_words(log_probs, ["see", "cats", "a"], tiny.lexicon())
    placed = align_words(log_probs, ["see", "zyx", "a"], tiny.lexicon())
    assert known is not None
    assert placed is not None
    # The unknown word may also take unclear frames at the edges of its neighbours.
    assert placed[0].start_frame == known[0].start_frame
    assert placed[2].end_frame == known[2].end_frame
    assert placed[1].start_frame < known[1].end_frame
    assert known[1].start_frame < placed[1].end_frame
    assert placed[0].end_frame <= placed[1].start_frame < placed[1].end_frame <= placed[2].start_frame


def test_more_words_than_frames_have_no_place():
    assert align_words(tiny.random_log_probs(3, 40, 0), ["cats"], tiny.lexicon()) is None
    assert align_words(np.zeros((0, 40), dtype=np.float32), ["a"], tiny.lexicon()) is None


def test_words_outside_the_lexicon_need_no_blank_between_them():
    placed = align_words(tiny.random_log_probs(3, 40, 0), ["zyx", "zyx", "qux"], tiny.lexicon())
    assert placed is not None
    assert [(w.start_frame, w.end_frame) for w in placed] == [(0, 1), (1, 2), (2, 3)]
