"""The lexicon beam against an exhaustive search over word sequences."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import math
import weakref

import numpy as np
import pytest
from flashlight.lib.text.decoder import LMState
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asr_service.decoding import lexicon_beam
from asr_service.decoding.hinted_tree import HintedTree
from asr_service.decoding.hypothesis import TimedWord
from asr_service.decoding.language_model import WordLanguageModel
from asr_service.decoding.lexicon_beam import LexiconBeam, LexiconBeamOptions
from asr_service.decoding.phrase_hints import PhraseHints
from asr_service.decoding.pronunciation_tree import PronunciationTree
from asr_service.decoding.timing import WordGraph, align_words, best_path
from asr_service.decoding.word_histories import WordHistories
from asr_service.errors import BundleError
from asr_service.lexicon import PHONE_IDS, Lexicon, phone_ids
from asr_service.types import PhraseHint
from tests.decoding import tiny
from training.likelihoods import words_log_likelihood


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return PronunciationTree(tiny.lexicon(), tiny.arpa(tmp_path_factory.mktemp("lm")))


def exhaustive_best(log_probs, tree, options):
    """The best word sequence of at most three words by Viterbi over each, and its three scores."""
    found = []
    for count in range(1, 4):
        for words in itertools.product(tiny.WORDS, repeat=count):
            graph = WordGraph([[phone_ids(phones) for phones in tiny.WORDS[word]] for word in words])
            path = best_path(log_probs, graph)
            if path is not None:
                acoustic = float(sum(log_probs[t, graph.labels[state]] for t, state in enumerate(path)))
                lm = tree.language_model.sentence(words)
                score = acoustic + options.lm_weight * lm + options.word_score * count
                found.append((score, words, acoustic, lm))
    return max(found)


@pytest.mark.parametrize("seed", range(30))
def test_a_wide_beam_finds_the_best_of_all_word_sequences_and_their_scores(tree, seed):
    log_probs = tiny.columns_of_words(tiny.random_log_probs(7, 40, seed))
    beam = LexiconBeam(tree, tiny.EXHAUSTIVE)
    beam.step(log_probs)
    hypothesis = next(h for h in beam.finish() if 1 <= len(h.words) <= 3)
    score, words, acoustic, lm = exhaustive_best(log_probs, tree, tiny.EXHAUSTIVE)
    assert hypothesis.texts == words
    assert hypothesis.score == pytest.approx(score, abs=1e-3)
    assert hypothesis.acoustic_score == pytest.approx(acoustic, abs=1e-3)
    assert hypothesis.lm_score == pytest.approx(lm, abs=1e-3)


@pytest.mark.parametrize("seed", range(6))
def test_with_log_add_a_hypothesis_has_the_sum_of_all_its_alignments(tree, seed):
    log_probs = tiny.columns_of_words(tiny.random_log_probs(6, 40, seed))
    options = dataclasses.replace(tiny.EXHAUSTIVE, log_add=True)
    beam = LexiconBeam(tree, options)
    beam.step(log_probs)
    found = [h for h in beam.finish() if h.words]
    assert len(found) > 5
    for hypothesis in found:
        words = hypothesis.texts
        total = words_log_likelihood(
            log_probs, WordGraph([[phone_ids(phones) for phones in tiny.WORDS[word]] for word in words])
        )
        prior = options.lm_weight * tree.language_model.sentence(words) + options.word_score * len(words)
        assert hypothesis.score == pytest.approx(total + prior, abs=1e-3)


def test_equal_phones_want_a_blank_between_them_within_and_across_words(tree):
    labels = [PHONE_IDS[p] if p else 0 for p in ["K", "AE", "T", "", "EH", "EH", "", "EH"]]
    log_probs = np.full((len(labels), 40), -9.0, dtype=np.float32)
    log_probs[np.arange(len(labels)), labels] = -0.1
    beam = LexiconBeam(tree, tiny.EXHAUSTIVE)
    beam.step(log_probs)
    assert beam.finish()[0].texts == ("cat", "a", "a")
    beam.begin()
    beam.step(log_probs[4:6])
    assert [h.texts for h in beam.finish() if h.acoustic_score > -1.0] == [("a",)]


def test_the_phones_of_a_hypothesis_are_those_of_the_chosen_pronunciations(tree):
    beam = LexiconBeam(tree)
    beam.step(tiny.spoken("see a cats", seed=5))
    best = beam.finish()[0]
    assert best.texts == ("see", "a", "cats")
    assert best.phone_ids == tuple(phone_ids("S IY EH K AE T S AH Z".split()))  # noqa: SIM905


def test_the_last_phone_of_a_word_may_last_many_frames(tree):
    labels = [
        PHONE_IDS[p]
        for p in [
            "S",
            "S",
            "IY",
            "IY",
            "IY",
            "IY",
            "IY",
            "EH",
            "EH",
            "EH",
            "EH",
            "K",
            "AE",
            "AE",
            "T",
            "T",
            "T",
            "T",
            "T",
        ]
    ]
    log_probs = np.full((len(labels), 40), -8.0, dtype=np.float32)
    log_probs[np.arange(len(labels)), labels] = -0.1
    beam = LexiconBeam(tree, tiny.EXHAUSTIVE)
    beam.step(log_probs)
    best = beam.finish()[0]
    assert best.texts == ("see", "a", "cat")
    assert best.acoustic_score == pytest.approx(-0.1 * len(labels), abs=0.01)
    assert [(w.start_frame, w.end_frame) for w in best.words] == [(0, 7), (7, 11), (11, 19)]


@pytest.mark.parametrize("seed", range(5))
def test_clear_speech_is_recognised_and_its_word_times_equal_forced_alignment(tree, seed):
    log_probs = tiny.spoken("see a cat", seed)
    beam = LexiconBeam(tree)
    beam.step(log_probs)
    best = beam.finish()[0]
    assert best.texts == ("see", "a", "cat")
    assert best.words == align_words(log_probs, best.texts, tiny.lexicon())


@settings(deadline=None, max_examples=30)
@given(cuts=st.lists(st.integers(0, 300), max_size=8), max_frames=st.sampled_from([125, 1500]))
def test_any_split_of_the_frames_gives_the_same_hypotheses(tree, cuts, max_frames):
    log_probs = np.concatenate([tiny.spoken("see a cat", seed, noise=2.0) for seed in range(12)])
    options = LexiconBeamOptions(max_frames=max_frames, look_back=20)
    whole, split = LexiconBeam(tree, options), LexiconBeam(tree, options)
    whole.step(log_probs)
    edges = sorted({0, len(log_probs), *(cut for cut in cuts if cut < len(log_probs))})
    for start, end in itertools.pairwise(edges):
        split.step(log_probs[start:end])
    assert split.best() == whole.best()
    found, expected = split.finish(), whole.finish()
    assert found[0] == expected[0]
    # Further down this toy language has ties (homophones in either order), of which the full beam keeps any.
    assert [h.score for h in found[:20]] == [h.score for h in expected[:20]]


@settings(deadline=None, max_examples=15)
@given(
    seed=st.integers(0, 1000),
    step=st.integers(1, 40),
    ahead=st.integers(1, 40),
    clear=st.booleans(),
    max_frames=st.sampled_from([80, 1500]),
    expected=st.dictionaries(st.sampled_from(["cat", "sea a", "a cat see"]), st.floats(0.0, 10.0), max_size=3),
)
# Rows of the trace that are used again, after a look-ahead and after words were fixed, when histories were forgotten.
@example(seed=319, step=25, ahead=22, clear=False, max_frames=1500, expected={})
@example(seed=528, step=18, ahead=7, clear=True, max_frames=80, expected={})
def test_a_look_ahead_sees_what_comes_and_changes_nothing(tree, seed, step, ahead, clear, max_frames, expected):
    noises = (0.3, 2.5, 0.3, 2.5, 0.3, 2.5, 0.3, 2.5)
    log_probs = np.concatenate([tiny.spoken("see a cat", seed + i, noise) for i, noise in enumerate(noises)])
    # What a chunk only looks at, without what comes after it, is less clear than when it comes.
    looked_at = log_probs if clear else np.concatenate([tiny.spoken("see a cat", seed + i, 4.0) for i in range(8)])
    options = LexiconBeamOptions(beam_size=30, beam_threshold=10.0, max_frames=max_frames, look_back=20)
    hints = PhraseHints([PhraseHint(phrase, boost) for phrase, boost in expected.items()])
    hinted = HintedTree(tree, tiny.lexicon(), hints, options.lm_weight) if expected else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lexicon_beam, "MOST_HISTORIES", 50)
        looking, plain = LexiconBeam(tree, options, hinted), LexiconBeam(tree, options, hinted)
        seen: dict[int, tuple[TimedWord, ...]] = {}
        for start in range(0, len(log_probs), step):
            for beam in (looking, plain):
                beam.step(log_probs[start : start + step])
            coming = looked_at[start + step : start + step + ahead]
            frames, words = looking.best_after(coming)
            assert frames == looking.frames + min(len(coming), max_frames - looking._trace.held)
            seen[frames] = words
            assert looking.best() == plain.best()
            if clear and plain.frames in seen:
                assert seen[plain.frames] == plain.best().words
        assert seen
        assert looking.finish() == plain.finish()


def test_a_search_of_any_length_holds_a_bounded_number_of_frames(tree):
    options = LexiconBeamOptions(max_frames=140, look_back=30, beam_size=30)
    beam = LexiconBeam(tree, options)
    for seed in range(30):
        beam.step(tiny.spoken("see a cat", seed))
        assert beam._trace.held <= options.max_frames
    best = beam.finish()[0]
    assert best.texts == ("see", "a", "cat") * 30
    starts = [word.start_frame for word in best.words]
    assert starts == sorted(starts)
    assert all(a.end_frame <= b.start_frame for a, b in itertools.pairwise(best.words))


def test_fixing_words_keeps_the_scores_of_the_whole_utterance(tree):
    log_probs = np.concatenate([tiny.spoken("see a cat", seed) for seed in range(15)])
    whole, bounded = LexiconBeam(tree), LexiconBeam(tree, LexiconBeamOptions(max_frames=130, look_back=25))
    for beam in (whole, bounded):
        beam.step(log_probs)
    assert bounded._offset > 100
    expected, found = whole.finish()[0], bounded.finish()[0]
    assert found.words == expected.words
    assert found.score == pytest.approx(expected.score, abs=0.2)
    assert found.acoustic_score == pytest.approx(expected.acoustic_score, abs=0.2)
    assert found.lm_score == pytest.approx(expected.lm_score, abs=0.2)


def test_the_words_of_a_phrase_are_sure_one_by_one_and_have_their_own_times_also_after_words_were_fixed(tree):
    log_probs = np.concatenate([tiny.spoken("see a cat", seed) for seed in range(15)])
    hints = PhraseHints([PhraseHint("a cat", 3.0)])
    hinted = HintedTree(tree, tiny.lexicon(), hints, LexiconBeamOptions().lm_weight)
    whole = LexiconBeam(tree, LexiconBeamOptions(sure_margin=0.1), hinted)
    bounded = LexiconBeam(tree, LexiconBeamOptions(max_frames=130, look_back=25), hinted)
    for beam in (whole, bounded):
        beam.step(log_probs)
    assert whole.sure_words() == len(whole.best().words) == 45
    assert bounded._offset > 100
    assert bounded.finish()[0].words == whole.finish()[0].words


@pytest.mark.parametrize("seed", range(10))
def test_a_narrow_beam_keeps_the_likeliest(tree, seed):
    log_probs = tiny.random_log_probs(1, 40, seed)
    scores = []
    for size in (100, 2, 3, 4):
        beam = LexiconBeam(tree, LexiconBeamOptions(beam_size=size, beam_size_token=40, beam_threshold=1e6))
        beam.step(log_probs)
        scores.append(sorted(beam._alive_scores, reverse=True))
    assert len(scores[0]) == 5
    assert scores[1:] == [scores[0][:size] for size in (2, 3, 4)]


def test_a_search_begins_afresh_after_an_utterance(tree):
    options = LexiconBeamOptions(max_frames=60, look_back=20)
    beam, fresh = LexiconBeam(tree, options), LexiconBeam(tree, options)
    beam.step(tiny.spoken("cats see " * 5, 1))
    assert beam._offset > 0
    beam.finish()
    beam.begin()
    for each in (beam, fresh):
        each.step(tiny.spoken("see a cat", 2))
    assert beam.finish() == fresh.finish()


def test_an_utterance_can_be_finished_a_hypothesis_at_a_time(tree):
    beam, at_once = (LexiconBeam(tree, LexiconBeamOptions(n_best_margin=100.0)) for _ in range(2))
    for each in (beam, at_once):
        each.step(tiny.spoken("see a cat", seed=3, noise=2.0))
    found = []

    def finish():
        found.extend((yield from beam.finish_parts(10)))

    assert len(list(finish())) == 2 * len(found) == 20, "found in the trace, then read"
    assert found == at_once.finish(10)


@pytest.mark.parametrize("of_its_own", [False, True])
def test_a_search_that_is_given_up_is_freed_without_the_garbage_collector(tree, of_its_own):
    hints = PhraseHints([PhraseHint("sea a", 2.0)])
    hinted = HintedTree(tree, tiny.lexicon(), hints, LexiconBeamOptions().lm_weight) if of_its_own else None
    beam = LexiconBeam(tree, None, hinted)
    beam.step(tiny.spoken("see a cat", seed=3))
    there = weakref.ref(beam)
    gc.disable()
    try:
        del beam
        assert there() is None
    finally:
        gc.enable()


def test_no_frames_give_no_hypotheses(tree):
    beam = LexiconBeam(tree)
    assert beam.finish() == []
    assert beam.best().words == ()


def test_two_searches_share_a_tree_without_disturbing_each_other(tree):
    one, other, alone = LexiconBeam(tree), LexiconBeam(tree), LexiconBeam(tree)
    mine, theirs = tiny.spoken("see a cat", 3, noise=1.5), tiny.spoken("a cats sea", 4, noise=1.5)
    alone.step(mine)
    for start in range(0, max(len(mine), len(theirs)), 5):
        one.step(mine[start : start + 5])
        other.step(theirs[start : start + 5])
    assert one.finish() == alone.finish()


def test_wrong_shapes_and_frames_after_the_end_are_refused(tree):
    beam = LexiconBeam(tree)
    with pytest.raises(ValueError, match="40"):
        beam.step(np.zeros((3, 41), dtype=np.float32))
    beam.step(np.zeros((3, 40), dtype=np.float32))
    beam.finish()
    with pytest.raises(ValueError, match="begin"):
        beam.step(np.zeros((3, 40), dtype=np.float32))


def test_homophones_of_any_number_are_all_found(tmp_path):
    names = ["see", "sea", *(f"s{letter}" for letter in "abcdefgh")]
    tree = PronunciationTree(Lexicon({name: [("S", "IY")] for name in names}), tiny.arpa(tmp_path))
    beam = LexiconBeam(tree, tiny.EXHAUSTIVE)
    beam.step(tiny.spoken("see", 0))
    assert {h.texts for h in beam.finish()} >= {(name,) for name in names}


def test_a_word_that_looked_likelier_than_it_is_does_not_empty_the_beam(tree):
    """By its unigram "a" is the best of the frame; by the bigram it, too, is below the bar that it would have set."""
    log_probs = np.full((3, 40), -9.0, dtype=np.float32)
    log_probs[:, PHONE_IDS["EH"]] = -0.1
    beam = LexiconBeam(tree, LexiconBeamOptions(beam_threshold=0.3, lm_weight=0.8))
    for row in log_probs:
        beam.step(row[np.newaxis])
        assert beam._count > 0
    assert beam.finish()[0].texts == ("a",)


@pytest.mark.parametrize("name", ["beam_threshold", "sure_margin", "n_best_margin"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_a_margin_that_nothing_lies_within_is_refused(name, value):
    with pytest.raises(ValueError, match=rf"{name}.* above 0"):
        LexiconBeamOptions(**{name: value})


def test_forgotten_histories_change_nothing(tree, monkeypatch):
    log_probs = np.concatenate([tiny.spoken("see a cat", seed, noise=2.0) for seed in range(6)])
    options = LexiconBeamOptions(beam_size=30)
    found = []
    for most in (1 << 14, 50):
        monkeypatch.setattr(lexicon_beam, "MOST_HISTORIES", most)
        beam = LexiconBeam(tree, options)
        beam.step(log_probs)
        held = len(beam._histories)
        found.append((beam.best(), beam.finish()))
    assert held < 1000
    assert found[0] == found[1]


def test_forgotten_histories_are_freed(tree, monkeypatch):
    def held(histories: WordHistories) -> int:
        """States of the language model: a state holds those that were scored after it."""
        found = {id(state): state for state in map(histories.state, range(len(histories)))}
        waiting = list(found.values())
        while waiting:
            following = [state for state in waiting.pop().children.values() if id(state) not in found]
            found |= {id(state): state for state in following}
            waiting += following
        return len(found)

    monkeypatch.setattr(lexicon_beam, "MOST_HISTORIES", 50)
    beam = LexiconBeam(tree, LexiconBeamOptions(beam_size=30))
    counts = []
    for seed in range(6):
        for log_probs in np.array_split(tiny.spoken("see a cat", seed, noise=2.0), 2):
            beam.step(log_probs)
            counts.append((held(beam._histories), len(beam._histories)))
    assert all(states <= histories for states, histories in counts), counts
    assert max(histories for _, histories in counts) > 50


@pytest.mark.parametrize("content", [None, b"", b"not a model at all\n"])
def test_a_language_model_that_is_none_is_a_bundle_error_that_names_the_file(tmp_path, content):
    path = tmp_path / "lm.kenlm"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BundleError, match=r"lm\.kenlm"):
        WordLanguageModel(path, ["see"])


def test_the_n_gram_keeps_no_state_of_the_words_that_it_was_asked_for(tmp_path):
    model = WordLanguageModel(tiny.arpa(tmp_path), list(tiny.WORDS))
    said = [model.unigram(index) for index in range(len(tiny.WORDS))]
    assert said == pytest.approx([-0.8, -1.1, -0.7, -1.0, -0.6])
    assert model.without_context(["see", "unheard-of", "see"]) == pytest.approx(math.log(10) * (-0.7 - 3.0 - 0.7))
    assert not [state for state in vars(model).values() if isinstance(state, LMState) and state.children]
