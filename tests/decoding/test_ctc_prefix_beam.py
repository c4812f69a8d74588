"""The prefix beam against sums over every alignment."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_service.decoding.ctc_prefix_beam import CtcPrefixBeam, PrefixBeamOptions
from asr_service.decoding.greedy import greedy
from asr_service.decoding.language_model import WordLanguageModel
from tests.decoding import tiny

PIECES = ["<blank>", "<s>", "</s>", "▁s", "ee", "ea", "▁a"]
WIDE = PrefixBeamOptions(beam_size=10_000, beam_size_token=10, min_log_prob=-1e9, lm_weight=0.0, word_score=0.0)


def log_probs_of(frames, seed):
    """Begin and end tokens are never emitted by CTC: impossible here, as in a trained model."""
    logits = np.random.default_rng(seed).normal(0, 1.5, (frames, len(PIECES)))
    logits[:, 1:3] = -1e4
    return (logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)).astype(np.float32)


def exhaustive(log_probs):
    """ln p of every label sequence, by adding up all alignments; then of each text, by its best label sequence."""
    totals = defaultdict(lambda: -math.inf)
    for labels in itertools.product((0, 3, 4, 5, 6), repeat=len(log_probs)):
        score = sum(float(log_probs[t, label]) for t, label in enumerate(labels))
        sequence = tuple(label for label, _ in itertools.groupby(labels) if label)
        totals[sequence] = np.logaddexp(totals[sequence], score)
    return totals


def words_of(sequence):
    return tuple("".join(PIECES[i] for i in sequence).replace("▁", " ").split())


@pytest.mark.parametrize("seed", range(6))
def test_without_a_language_model_prefixes_have_the_sum_of_all_their_alignments(seed):
    log_probs = log_probs_of(5, seed)
    texts = defaultdict(lambda: -math.inf)
    for sequence, score in exhaustive(log_probs).items():
        words = words_of(sequence)
        texts[words] = max(texts[words], score + 0.9 * len(words))
    beam = CtcPrefixBeam(PIECES, dataclasses.replace(WIDE, word_score=0.9))
    beam.step(log_probs)
    found = beam.finish(limit=10)
    expected = sorted(texts.items(), key=lambda item: -item[1])[:10]
    assert [h.score for h in found] == pytest.approx([score for _, score in expected], abs=1e-4)
    assert [h.texts for h in found] == [words for words, _ in expected]


@pytest.mark.parametrize("seed", range(4))
def test_with_a_language_model_known_and_unknown_words_are_scored_as_it_does(tmp_path, seed):
    lm = WordLanguageModel(tiny.arpa(tmp_path), list(tiny.WORDS))
    options = PrefixBeamOptions(**{**_fields(WIDE), "lm_weight": 0.7, "word_score": 0.9})
    log_probs = log_probs_of(5, seed)
    beam = CtcPrefixBeam(PIECES, options, lm)
    beam.step(log_probs)
    best = beam.finish()[0]
    scores = {}
    for sequence, acoustic in exhaustive(log_probs).items():
        words = words_of(sequence)
        scores[sequence] = acoustic + 0.7 * lm.sentence(words) + 0.9 * len(words)
    sequence = max(scores, key=scores.__getitem__)
    assert best.texts == words_of(sequence)
    assert best.score == pytest.approx(scores[sequence], abs=1e-4)
    assert best.lm_score == pytest.approx(lm.sentence(words_of(sequence)), abs=1e-4)


def _fields(options):
    return {name: getattr(options, name) for name in options.__slots__}


@settings(deadline=None, max_examples=30)
@given(cuts=st.lists(st.integers(1, 29), max_size=6), seed=st.integers(0, 50))
def test_any_split_of_the_frames_gives_the_same(cuts, seed):
    log_probs = log_probs_of(30, seed)
    whole, split = CtcPrefixBeam(PIECES), CtcPrefixBeam(PIECES)
    whole.step(log_probs)
    for start, end in itertools.pairwise(sorted({0, 30, *cuts})):
        split.step(log_probs[start:end])
    assert split.finish() == whole.finish()


def test_words_carry_the_frames_of_their_pieces():
    log_probs = np.full((8, len(PIECES)), -9.0, dtype=np.float32)
    log_probs[np.arange(8), [0, 3, 3, 4, 0, 0, 6, 0]] = -0.01
    beam = CtcPrefixBeam(PIECES)
    beam.step(log_probs)
    assert [(w.text, w.start_frame, w.end_frame) for w in beam.finish()[0].words] == [("see", 1, 4), ("a", 6, 7)]


def test_a_word_begins_where_it_was_first_heard_though_it_was_not_yet_the_likeliest():
    probabilities = np.full((4, len(PIECES)), 1e-4, dtype=np.float32)
    probabilities[np.arange(4), [0, 0, 6, 0]] = 0.9
    probabilities[1] = [0.6, 0.0, 0.0, 0.0, 0.0, 0.0, 0.4]
    beam = CtcPrefixBeam(PIECES)
    beam.step(np.log(probabilities + 1e-9))
    assert [(w.text, w.start_frame) for w in beam.finish()[0].words] == [("a", 1)]


def test_begin_and_end_tokens_are_no_text_however_likely():
    log_probs = log_probs_of(6, 0)
    log_probs[:, 1:3] = -0.1
    beam = CtcPrefixBeam(PIECES)
    beam.step(log_probs)
    assert {letter for h in beam.finish() for word in h.texts for letter in word} <= set("sea")


def test_a_search_begins_afresh_after_an_utterance():
    options = PrefixBeamOptions(max_frames=30)
    beam, fresh = CtcPrefixBeam(PIECES, options), CtcPrefixBeam(PIECES, options)
    beam.step(log_probs_of(20, 1))
    beam.finish()
    beam.begin()
    for each in (beam, fresh):
        each.step(log_probs_of(20, 2))
    assert beam.frames == fresh.frames == 20
    assert beam.finish() == fresh.finish()


def test_greedy_tokens_drop_repeats_and_blanks_and_keep_frames():
    log_probs = np.full((7, 4), -9.0, dtype=np.float32)
    log_probs[np.arange(7), [0, 1, 1, 0, 1, 3, 3]] = 0.0
    assert [(t.token_id, t.start_frame, t.end_frame) for t in greedy(log_probs)] == [(1, 1, 3), (1, 4, 5), (3, 5, 7)]


def test_an_utterance_beyond_the_limit_is_refused():
    beam = CtcPrefixBeam(PIECES, PrefixBeamOptions(max_frames=10))
    with pytest.raises(ValueError, match="10"):
        beam.step(log_probs_of(11, 0))


def test_wrong_vocabulary_is_refused():
    with pytest.raises(ValueError, match=r"\(T, 7\)"):
        CtcPrefixBeam(PIECES).step(np.zeros((3, 6), dtype=np.float32))
