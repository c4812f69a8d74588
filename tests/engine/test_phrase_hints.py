"""Phrase hints in the searches that streams get: honoured in each of them, and no other stream's business."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from asr_service.config import EngineSettings, PhraseHintSettings
from asr_service.decoding.hinted_tree import HintedTree
from asr_service.decoding.open_vocabulary import spelled_words
from asr_service.decoding.phrase_hints import PhraseHints
from asr_service.engine.engine import BatchingEngine
from asr_service.engine.interface import Finished, StreamOptions
from asr_service.engine.runner import Encoded, ModelRunner
from asr_service.engine.search_space import LETTER_TO_SOUND_FILE, SearchSpace
from asr_service.letter_to_sound import LetterToSound
from asr_service.model.bundle import Bundle
from asr_service.server.hint_preparation import HintPreparation
from asr_service.streaming.endpointer import Endpointer
from asr_service.types import EndpointingConfig, Hypothesis, Mode, PhraseHint, RecognitionConfig
from tests.engine.conftest import WORDS
from tests.engine.stepped import SETTINGS, Stepped

BOOST = 18.0


@pytest.fixture(scope="module")
def encoded(tiny_bundle) -> Encoded:
    runner = ModelRunner(tiny_bundle, streams=1, threads=1)
    return runner.encode_whole(torch.randn(320, 80, generator=torch.Generator().manual_seed(1)).numpy())


@pytest.fixture(scope="module")
def spaces(tiny_bundle) -> dict[str, SearchSpace]:
    # A random model spells anything: words outside the lexicon are out of the question here.
    rescoring = {**tiny_bundle.decoding["rescoring"], "unknown": -1e4}
    closed = dataclasses.replace(tiny_bundle, decoding={**tiny_bundle.decoding, "rescoring": rescoring})
    return {
        "lexicon": SearchSpace(closed),
        "pieces": SearchSpace(dataclasses.replace(tiny_bundle, lm_path=None)),
        "pieces without a lexicon": SearchSpace(dataclasses.replace(tiny_bundle, lm_path=None, lexicon=None)),
    }


def answer(space: SearchSpace, encoded: Encoded, mode: Mode, hints: tuple[PhraseHint, ...] = ()) -> Hypothesis:
    search = space.new_search(StreamOptions(mode, max_alternatives=5, phrase_hints=hints))
    search.step(encoded)
    return search.final(offset_s=0.0)[0]


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("kind", ["lexicon", "pieces", "pieces without a lexicon"])
def test_expected_words_are_found_more_and_a_neighbour_hears_what_it_would(spaces, encoded, kind, mode) -> None:
    space = spaces[kind]
    alone = answer(space, encoded, mode)
    unheard = sorted(WORDS.keys() - set(alone.text.split()))[:12]
    hints = tuple(PhraseHint(word, BOOST) for word in unheard)
    neighbour = space.new_search(StreamOptions(mode, max_alternatives=5))
    hinted = answer(space, encoded, mode, hints)
    assert set(hinted.text.split()) & set(unheard)
    neighbour.step(encoded)
    assert neighbour.final(offset_s=0.0)[0] == alone
    assert answer(space, encoded, mode) == alone
    assert answer(space, encoded, mode, hints) == hinted


def spelling(bundle: Bundle, encoded: Encoded, text: str) -> Encoded:
    """`encoded`, whose word pieces spell `text` from its first frame on."""
    logits = torch.zeros(encoded.pieces.shape)
    logits[:, bundle.pieces.blank_id] = 5.0
    for frame, token in enumerate(bundle.pieces.encode(text)):
        logits[2 * frame, token] = 10.0
    return dataclasses.replace(encoded, pieces=torch.log_softmax(logits, dim=-1).numpy())


def test_a_word_that_the_lexicon_lacks_is_heard_where_it_is_nearly_spelled(tiny_bundle, spaces, encoded) -> None:
    mode = Mode.ACCURATE
    encoded = spelling(tiny_bundle, encoded, "sv")
    assert [word.text for word in spelled_words(tiny_bundle.pieces, encoded.pieces, ratio=2)] == ["sv"]
    near = "svv"
    assert near not in WORDS
    assert near not in answer(spaces["lexicon"], encoded, mode).text.split()
    # Its random decoder and n-gram think little of it: what is shown is that the hypothesis is there to be ranked.
    assert near in answer(spaces["lexicon"], encoded, mode, (PhraseHint(near, 500.0),)).text.split()


@pytest.mark.parametrize("mode", list(Mode))
def test_hints_that_are_worth_nothing_change_nothing(spaces, encoded, mode) -> None:
    assert answer(spaces["lexicon"], encoded, mode, (PhraseHint("tick", 0.0),)) == answer(
        spaces["lexicon"], encoded, mode
    )


def test_a_tree_is_built_once_on_the_thread_that_asks_and_stays_with_its_stream(
    tiny_bundle, encoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = SearchSpace(tiny_bundle)
    built: list[tuple[str, PhraseHints]] = []

    def build(shared: object, lexicon: object, hints: PhraseHints, *rest: object) -> HintedTree:
        built.append((threading.current_thread().name, hints))
        return HintedTree(shared, lexicon, hints, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr("asr_service.engine.search_space.HintedTree", build)
    expected = (PhraseHint("tick", BOOST),)
    with ThreadPoolExecutor(4, thread_name_prefix="caller") as callers:
        list(callers.map(lambda _: space.prepare(Mode.STREAMING, expected), range(8)))
    assert [name.partition("_")[0] for name, _ in built] == ["caller"]
    make = space.searches(StreamOptions(Mode.STREAMING, phrase_hints=expected))
    for place in range(PhraseHintSettings.KEPT_TREES + 1):
        space.prepare(Mode.STREAMING, (PhraseHint("baa", 1.0 + place),))
    count = len(built)
    make().step(encoded)
    assert len(built) == count  # what the stream holds outlives the cache, so that its search never builds


def expecting(place: int) -> tuple[PhraseHint, ...]:
    """Hints that no other place has."""
    return (PhraseHint("baa", 1.0 + place / 16),)


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[PhraseHints]:
    """What trees were built for."""
    built: list[PhraseHints] = []

    def build(shared: object, lexicon: object, hints: PhraseHints, *rest: object) -> HintedTree:
        built.append(hints)
        return HintedTree(shared, lexicon, hints, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr("asr_service.engine.search_space.HintedTree", build)
    return built


def test_a_stream_whose_tree_is_ready_waits_for_nobody_elses(tiny_bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    space = SearchSpace(tiny_bundle)
    ready, building, go_on = expecting(0), threading.Event(), threading.Event()
    space.prepare(Mode.STREAMING, ready)

    def build(*of: object) -> HintedTree:
        building.set()
        go_on.wait(60)
        return HintedTree(*of)  # type: ignore[arg-type]

    monkeypatch.setattr("asr_service.engine.search_space.HintedTree", build)
    with ThreadPoolExecutor(2) as callers:
        try:
            other = callers.submit(space.prepare, Mode.STREAMING, expecting(1))
            assert building.wait(60)
            opened = callers.submit(space.searches, StreamOptions(Mode.STREAMING, phrase_hints=ready))
            opened.result(timeout=10)
            assert not other.done()
        finally:
            go_on.set()


def test_what_is_prepared_stays_while_it_is_held_and_is_forgotten_in_its_turn_after_that(tiny_bundle, built) -> None:
    space = SearchSpace(tiny_bundle)
    most = PhraseHintSettings.KEPT_TREES

    def trees_built_by(hints: tuple[PhraseHint, ...]) -> int:
        before = len(built)
        space.searches(StreamOptions(Mode.STREAMING, phrase_hints=hints))
        return len(built) - before

    held = [space.prepare(Mode.STREAMING, expecting(place)) for place in range(3 * most)]
    assert [trees_built_by(expecting(place)) for place in range(3 * most)] == [0] * (3 * most)
    held.clear()
    for place in range(most):
        space.prepare(Mode.STREAMING, expecting(3 * most + place))
    assert [trees_built_by(expecting(3 * most + place)) for place in range(most)] == [0] * most
    assert trees_built_by(expecting(0)) == 1


def test_no_call_builds_a_tree_as_it_opens_its_stream_however_late_the_event_loop_is(tiny_bundle, built) -> None:
    space, calls = SearchSpace(tiny_bundle), 3 * PhraseHintSettings.KEPT_TREES
    info = SimpleNamespace(max_streams=calls)
    engine = SimpleNamespace(prepare=space.prepare, ready=space.ready, active_streams=0, info=info)
    preparation = HintPreparation(PhraseHintSettings(max_waiting=calls))
    trees_at_opening: list[tuple[int, int]] = []

    def until_all_are_built() -> None:
        while any(thread.name == "phrase-hints" for thread in threading.enumerate()):
            time.sleep(0.01)

    async def call(place: int) -> None:
        config = RecognitionConfig(mode=Mode.STREAMING, phrase_hints=expecting(place))
        await preparation.prepare(engine, config)
        before = len(built)
        space.searches(StreamOptions(config.mode, phrase_hints=config.phrase_hints))
        trees_at_opening.append((before, len(built)))

    async def main() -> None:
        waiting = [asyncio.create_task(call(place)) for place in range(calls)]
        await asyncio.sleep(0)
        until_all_are_built()  # and holds the loop
        await asyncio.gather(*waiting)

    asyncio.run(main())
    assert trees_at_opening == [(calls, calls)] * calls


def test_a_call_whose_trees_are_there_waits_for_no_other_call(tiny_bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Stepped(tiny_bundle, SETTINGS)
    ready, slow = (RecognitionConfig(mode=Mode.STREAMING, phrase_hints=expecting(place)) for place in range(2))
    engine.prepare(ready.mode, ready.phrase_hints)
    go_on = threading.Event()

    def build(*of: object) -> HintedTree:
        go_on.wait(60)
        return HintedTree(*of)  # type: ignore[arg-type]

    monkeypatch.setattr("asr_service.engine.search_space.HintedTree", build)
    preparation = HintPreparation(PhraseHintSettings(max_waiting=1))

    async def main() -> None:
        other = asyncio.create_task(preparation.prepare(engine, slow))
        await asyncio.sleep(0)
        try:
            assert await asyncio.wait_for(preparation.prepare(engine, ready), 10) is not None
            assert not other.done()
        finally:
            go_on.set()
        assert await other is not None

    asyncio.run(main())


@pytest.mark.parametrize("policy", ["chunked", "windowed"])
@pytest.mark.parametrize("mode", list(Mode))
def test_what_the_engine_prepared_it_need_not_build_again(tiny_bundle, built, policy: str, mode: Mode) -> None:
    decoding = tiny_bundle.decoding
    accurate = {**decoding["accurate"], "lm_weight": 0.2}  # another tree than that of mode streaming
    bundle = dataclasses.replace(tiny_bundle, decoding={**decoding, "accurate": accurate})
    engine = Stepped(bundle, dataclasses.replace(SETTINGS, policy=policy))
    assert engine.ready(mode, expecting(0)) is None
    engine.prepare(mode, expecting(0))
    assert engine.ready(mode, expecting(0)) is not None
    count = len(built)
    engine.open(StreamOptions(mode, phrase_hints=expecting(0)), Endpointer(EndpointingConfig()), print)
    assert len(built) == count > 0


def test_the_engine_builds_no_tree_on_its_own_thread(tiny_bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []

    def build(*of: object) -> HintedTree:
        threads.append(threading.current_thread().name)
        return HintedTree(*of)  # type: ignore[arg-type]

    monkeypatch.setattr("asr_service.engine.search_space.HintedTree", build)
    engine = BatchingEngine(tiny_bundle, EngineSettings(max_streams=2))
    engine.start()
    try:
        outputs: queue.SimpleQueue[object] = queue.SimpleQueue()
        options = StreamOptions(Mode.STREAMING, phrase_hints=(PhraseHint("tick", BOOST),))
        engine.finish(engine.open(options, Endpointer(EndpointingConfig()), outputs.put))
        while not isinstance(outputs.get(timeout=60), Finished):
            pass
    finally:
        engine.stop()
    assert threads == [threading.current_thread().name]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Words whose pronunciations were guessed."""
    told: list[str] = []
    pronounce = LetterToSound.pronounce
    monkeypatch.setattr(
        LetterToSound, "pronounce", lambda model, word, **how: told.append(word) or pronounce(model, word, **how)
    )
    monkeypatch.setattr("asr_service.engine.search_space.PAUSE_S", 0.0)
    return told


@pytest.fixture
def literate(tiny_bundle, tmp_path: Path) -> SearchSpace:
    """Of a bundle that knows how the letters t, i and k sound."""
    LetterToSound.learn([[("t", ("T",)), ("i", ("IH",)), ("k", ("K",))]] * 3, order=2).save(
        tmp_path / LETTER_TO_SOUND_FILE
    )
    return SearchSpace(dataclasses.replace(tiny_bundle, directory=tmp_path))


def test_how_unknown_words_sound_is_guessed_where_the_bundle_knows_letters_and_only_once(
    tiny_bundle, literate: SearchSpace, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PhraseHintSettings, "MOST_GUESSED", 2)
    hints = tuple(PhraseHint(phrase, 5.0) for phrase in ("tik", "tick tik", "kit", "titi"))
    tree = literate.hinted_tree(Mode.STREAMING, hints)
    assert tree is not None and told == ["tik", "kit"]  # "titi" is one too many
    assert {tree.texts(label) for label in tree.boosts} == {("tik",), ("tick", "tik"), ("kit",)}
    literate.prepare(Mode.ACCURATE, hints)
    literate.prepare(Mode.STREAMING, (*hints, PhraseHint("baa", 2.0)))
    assert told == ["tik", "kit"]
    without = SearchSpace(tiny_bundle).hinted_tree(Mode.STREAMING, hints)
    assert without is not None and not without.boosts


def test_how_a_long_word_sounds_is_not_guessed_and_its_spelling_is_still_expected(literate, told: list[str]) -> None:
    longest = PhraseHintSettings.LONGEST_GUESSED
    known, longer = "tik" * (longest // 3), "tik" * (longest // 3) + "t" * (1 + longest % 3)
    tree = literate.hinted_tree(Mode.STREAMING, (PhraseHint(longer, 5.0), PhraseHint(known, 5.0)))
    assert tree is not None and told == [known]
    assert {tree.texts(label) for label in tree.boosts} == {(known,)}
    assert (longer,) in tree.unheard


def test_the_letters_of_all_words_that_are_guessed_for_a_request_are_bounded(literate, told: list[str]) -> None:
    words = ["".join(letters) for letters in itertools.islice(itertools.product("tik", repeat=20), 400)]
    literate.prepare(Mode.STREAMING, tuple(PhraseHint(word, 5.0) for word in words))
    assert told == words[: PhraseHintSettings.MOST_GUESSED_LETTERS // 20]
    assert 2000 <= sum(map(len, told)) <= 4000


def test_a_tree_that_is_prepared_again_is_forgotten_no_earlier_than_one_that_is_new(tiny_bundle, built) -> None:
    space = SearchSpace(tiny_bundle)
    for place in (*range(PhraseHintSettings.KEPT_TREES), 0, PhraseHintSettings.KEPT_TREES):
        space.prepare(Mode.STREAMING, expecting(place))
    count = len(built)
    space.searches(StreamOptions(Mode.STREAMING, phrase_hints=expecting(0)))
    assert len(built) == count


def test_a_tree_that_two_calls_hold_stays_until_both_let_it_go(tiny_bundle, built) -> None:
    space = SearchSpace(tiny_bundle)
    first = space.prepare(Mode.STREAMING, expecting(0))
    second = space.prepare(Mode.STREAMING, expecting(0))
    for place in range(2):
        if place:
            del second
        for other in range(2 * PhraseHintSettings.KEPT_TREES):
            space.prepare(Mode.STREAMING, expecting(1 + other + 100 * place))
        count = len(built)
        space.searches(StreamOptions(Mode.STREAMING, phrase_hints=expecting(0)))
        assert len(built) == count
    assert first is not None
