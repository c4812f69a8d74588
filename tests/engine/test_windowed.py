"""Promises of the windowed policy: those of the chunked one, for encoders that know full context only."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from asr_service.config import EngineSettings
from asr_service.decoding.hypothesis import TimedWord
from asr_service.engine.engine import BatchingEngine
from asr_service.engine.interface import Final, Finished, FrameEvidence, Partial, StreamOptions
from asr_service.engine.runner import Encoded
from asr_service.engine.search_space import SearchSpace
from asr_service.engine.windowed import WindowedDecoder
from asr_service.errors import BundleError
from asr_service.model.bundle import Bundle, StreamingConfig, load_bundle
from asr_service.model.config import TransformerConfig
from asr_service.parts import at_once
from asr_service.tokenizer import WordPieces
from asr_service.types import Hypothesis, Mode, Word
from tests.engine.conftest import WORDS, save_random_bundle
from tests.engine.listening import Listener, babble, start, transcript
from tests.engine.stepped import Stepped

# Windows are cut after two seconds, so that a test's utterances are long enough for it.
SETTINGS = EngineSettings(max_streams=4, precision="fp32", policy="windowed", window_s=2.0)


@pytest.fixture(scope="module")
def full_context_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Absolute positions, post-norm, no phones: the Transformer of 2017, with random weights."""
    folder = tmp_path_factory.mktemp("bundle") / "full-context"
    torch.manual_seed(3)
    pieces = WordPieces.train(sorted(WORDS) * 3, 40)
    config = TransformerConfig(
        stem_channels=4,
        d_model=32,
        n_heads=2,
        ffn_dim=48,
        encoder_layers=2,
        decoder_layers=1,
        downsample_after=None,
        positions="sinusoidal",
        norm="post",
        activation="relu",
        conv_kernel=0,
        vocab_size=pieces.vocab_size,
        phone_vocab_size=0,
    )
    save_random_bundle(
        folder,
        config,
        name="full-context",
        pieces=pieces,
        streaming=StreamingConfig(chunk_frames=16, left_frames=2, lookahead_frames=0),
        decoding={"joint": {"beam_size": 2, "candidates": 4}, "pieces": {"beam_size": 4}},
    )
    return load_bundle(folder)


@pytest.fixture(params=["full context", "streaming"])
def engine(request: pytest.FixtureRequest, full_context_bundle: Bundle, tiny_bundle: Bundle) -> Stepped:
    """A checkpoint that can do nothing else, and one that is made to."""
    return Stepped(full_context_bundle if request.param == "full context" else tiny_bundle, SETTINGS)


def run(engine: Stepped, pcm: np.ndarray, *, pieces: int = 1, turns: bool = False) -> Listener:
    """`turns`: the engine works between two pieces."""
    handle, listener = start(engine, Mode.STREAMING, interim=True)
    for part in np.array_split(pcm, pieces):
        engine.audio(handle, part)
        if turns:
            engine.settle()
    engine.finish(handle)
    engine.settle()
    assert isinstance(listener.outputs[-1], Finished)
    return listener


def test_what_an_encoder_can_do_decides_and_what_it_cannot_do_is_refused(
    full_context_bundle: Bundle, tiny_bundle: Bundle
) -> None:
    settings = dataclasses.replace(SETTINGS, policy="auto")
    windowed, chunked = BatchingEngine(full_context_bundle, settings), BatchingEngine(tiny_bundle, settings)
    assert windowed.info.modes == chunked.info.modes == (Mode.ACCURATE, Mode.STREAMING)
    assert type(windowed._policy).__name__ == "WindowedPolicy" and type(chunked._policy).__name__ == "ChunkedPolicy"
    with pytest.raises(BundleError, match="full context only"):
        BatchingEngine(full_context_bundle, dataclasses.replace(settings, policy="chunked"))


def test_any_split_of_the_audio_gives_the_same_partials_and_finals(engine: Stepped) -> None:
    pcm = babble(6.0, 1)
    whole = run(engine, pcm)
    assert whole.finals()
    for pieces, turns in ((7, True), (7, False), (61, True)):
        split = run(engine, pcm, pieces=pieces, turns=turns)
        for kind in (Partial, Final):
            assert [o for o in split.outputs if isinstance(o, kind)] == [
                o for o in whole.outputs if isinstance(o, kind)
            ]


def test_streams_whose_windows_are_encoded_together_equal_each_alone(engine: Stepped) -> None:
    recordings = [babble(3.0 + seed, seed) for seed in range(3)]
    alone = [transcript(run(engine, pcm)) for pcm in recordings]
    opened = [start(engine, Mode.STREAMING, interim=True) for _ in recordings]
    for (handle, _), pcm in zip(opened, recordings, strict=True):
        engine.audio(handle, pcm)
        engine.finish(handle)
    engine.settle()
    assert [transcript(listener) for _, listener in opened] == alone
    assert all(alone)


def test_stable_words_stay_and_finals_start_with_them(engine: Stepped) -> None:
    listener = run(engine, steady(9.0, 5), pieces=40, turns=True)
    stable: list[str] = []
    most_stable = 0
    for output in listener.outputs:
        if isinstance(output, Partial):
            words = [word.text for word in output.hypothesis.words]
            assert words[: len(stable)] == stable
            stable = words[: output.stable_words]
            most_stable = max(most_stable, len(stable))
        elif isinstance(output, Final):
            for alternative in output.alternatives:
                assert [word.text for word in alternative.words][: len(stable)] == stable
                starts = [word.start_s for word in alternative.words]
                assert starts == sorted(starts)
                assert all(word.start_s < word.end_s and 0 <= word.confidence <= 1 for word in alternative.words)
            stable = []
    assert most_stable >= 2


def steady(seconds: float, seed: int) -> np.ndarray:
    """The same syllables again and again without a pause: hypotheses of random weights agree on some of it."""
    rng = np.random.default_rng(seed)
    syllables = rng.standard_normal((4, 4_000)).astype(np.float32) * np.float32(0.1)
    syllables *= np.hanning(4_000).astype(np.float32)
    quiet = rng.standard_normal(8_000).astype(np.float32) * np.float32(0.0005)
    return np.concatenate([quiet, *(syllables[place % 4] for place in range(int(seconds * 4)))])


def test_a_window_that_grows_too_long_is_cut_between_committed_words_and_loses_none(engine: Stepped) -> None:
    handle, _ = start(engine, Mode.STREAMING, interim=True)
    lengths, committed = [], 0
    for part in np.array_split(steady(5.4, 5), 54):
        engine.audio(handle, part)
        engine.settle()
        (decoder,) = engine._live._decoders.values()
        lengths.append((decoder._start, len(decoder._window)))
        words = decoder._agreement.committed
        if len(decoder._window):
            assert len(words) >= committed, "no word is forgotten"
            committed = len(words)
        if decoder._start:
            cut_off = len(decoder._confidences)
            assert words[cut_off - 1].end_frame - 1 <= decoder._start <= words[cut_off].start_frame + 1
    engine.finish(handle)
    engine.settle()
    if any(start for start, _ in lengths):
        assert min(length for start, length in lengths if start) < max(length for start, length in lengths if not start)


@pytest.mark.parametrize("merges_frames", [True, False])
def test_no_audio_leaves_a_window_before_its_words_are_committed(
    full_context_bundle: Bundle, tiny_bundle: Bundle, merges_frames: bool
) -> None:
    """A word a second; each is heard where the window holds it, and nowhere else."""
    base, by_ctc = tiny_bundle if merges_frames else full_context_bundle, {"ctc_weight": 1.0, "candidates": 1000}
    bundle = dataclasses.replace(base, lexicon=None, lm_path=None, decoding={**base.decoding, "joint": by_ctc})
    frame, spoken = (8 if merges_frames else 4), sorted(WORDS)[:12]
    space = SearchSpace(bundle)
    steps, finals = (space.new_search(StreamOptions(Mode.STREAMING)) for _ in range(2))
    decoder = WindowedDecoder(steps, finals, n_mels=80, window_s=4.0, lag_s=0.0)
    for _ in range(27):
        window = decoder.take(np.zeros((48, 80), dtype=np.float32), ends_utterance=False, waiting=0)
        assert window is not None
        labels = np.zeros(len(window) // frame, dtype=int)
        for place, word in enumerate(spoken):
            tokens, at = bundle.pieces.encode(word), (50 + 100 * place - decoder._start) // frame
            if 0 <= at < len(labels) - 2 * len(tokens):
                labels[at : at + 2 * len(tokens) : 2] = tokens  # with blanks in between
        log_probs = np.full((len(labels), bundle.pieces.vocab_size), -12.0, dtype=np.float32)
        log_probs[np.arange(len(labels)), labels] = -0.01
        phones, hidden = np.zeros((len(labels), 0), dtype=np.float32), torch.zeros(len(labels), 32)
        decoder.step(Encoded(phones, log_probs, hidden))
    assert decoder._start > 0
    heard = decoder.partial(offset_s=0.0)[0].words
    assert [word.text for word in heard] == spoken
    assert [word.start_s for word in heard] == pytest.approx([0.5 + place for place in range(len(spoken))], abs=0.09)
    cut_off = len(decoder._confidences)
    (final,) = at_once(decoder.final_parts(offset_s=0.0))
    assert [word.text for word in final.words[:cut_off]] == spoken[:cut_off] != []
    assert all(word.confidence > 0.5 for word in final.words[:cut_off]), "as sure as when the window held them"
    decoder.reset()
    assert (decoder._start, decoder._confidences, decoder.has_words) == (0, [], False)


def test_a_stream_that_is_behind_leaves_steps_out_and_ends_with_all_its_audio_only_if_told_to(
    tiny_bundle: Bundle,
) -> None:
    pcm = babble(2.2, 3)

    def encodes(lag_s: float) -> tuple[int, Listener]:
        engine = Stepped(tiny_bundle, dataclasses.replace(SETTINGS, window_lag_s=lag_s, window_s=20.0))
        sizes: list[int] = []
        original = engine._runner.encode_utterances
        engine._runner.encode_utterances = lambda windows: (  # type: ignore[method-assign]
            sizes.append(len(windows)),
            original(windows),
        )[1]
        listener = run(engine, pcm)
        return len(sizes), listener

    (every, patient), (some, hurried) = encodes(0.0), encodes(0.5)
    assert some < every
    assert [final.end_s for final in hurried.finals()] == [final.end_s for final in patient.finals()] != []


def test_nothing_is_left_of_an_utterance_in_the_next(engine: Stepped) -> None:
    """A stream's second utterance is what it would be as a first one: its window begins where it begins."""
    pcm = babble(4.6, 2)
    cut = round(2.24 * 16_000)  # in the pause

    def words(parts: list[np.ndarray]) -> list[list[str]]:
        listener = Listener()
        handle = engine.open(StreamOptions(Mode.STREAMING), Endless(), listener)
        for part in parts:
            engine.audio(handle, part)
            engine.settle()
            engine.flush(handle)
        engine.finish(handle)
        engine.settle()
        return [final.alternatives[0].text.split() for final in listener.finals()]

    both = words([pcm[: cut + 400], pcm[cut + 400 :]])
    assert len(both) == 2
    assert words([pcm[cut:]]) == both[1:]


class Endless:
    """Leaves it to the client where utterances end."""

    def observe(self, evidence: FrameEvidence) -> bool:
        return False


def test_a_failure_in_one_window_ends_its_stream_only(tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Stepped(tiny_bundle, SETTINGS)
    original = engine._runner.encode_utterances

    def encode(windows: list) -> list:
        if any(np.all(window == window[0, 0]) for window in windows):
            raise RuntimeError("cosmic ray")
        return original(windows)

    monkeypatch.setattr(engine._runner, "encode_utterances", encode)
    sick, sick_listener = start(engine, Mode.STREAMING)
    well, well_listener = start(engine, Mode.STREAMING)
    engine.audio(sick, np.zeros(30_000, np.float32))
    engine.audio(well, babble(2.0, 4))
    engine.finish(well)
    engine.settle()
    assert sick_listener.done.is_set() and not sick_listener.finals()
    assert isinstance(well_listener.outputs[-1], Finished) and well_listener.finals()


def test_the_folder_is_named_where_the_policy_does_not_fit(full_context_bundle: Bundle) -> None:
    with pytest.raises(BundleError) as caught:
        BatchingEngine(full_context_bundle, EngineSettings(policy="chunked"))
    assert str(Path(full_context_bundle.directory)) in caught.value.message


def test_a_committed_word_that_is_not_heard_again_where_it_was_is_not_sure(tiny_bundle: Bundle) -> None:
    space = SearchSpace(tiny_bundle)
    steps, finals = (space.new_search(StreamOptions(Mode.STREAMING)) for _ in range(2))
    decoder = WindowedDecoder(steps, finals, n_mels=80, window_s=4.0, lag_s=0.0)
    committed = (TimedWord("baa", 0, 30), TimedWord("tick", 40, 80))
    heard = (TimedWord("baa", 10, 35), TimedWord("tick", 200, 240))
    heard_as = Hypothesis((Word("baa", 0.1, 0.35, 0.9), Word("tick", 2.0, 2.4, 0.8)))
    assert decoder._sure(committed, heard, heard_as) == [0.9, 0.0]


def test_windows_are_as_long_and_as_late_as_the_settings_say(tiny_bundle: Bundle) -> None:
    engine = Stepped(tiny_bundle, dataclasses.replace(SETTINGS, window_s=3.5, window_lag_s=1.5))
    start(engine, Mode.STREAMING)
    engine.turn()
    (decoder,) = engine._live._decoders.values()
    assert isinstance(decoder, WindowedDecoder)
    assert (decoder._longest, decoder._lag) == (350, 150)
