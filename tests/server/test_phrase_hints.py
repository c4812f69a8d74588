"""Phrase hints of a request: what is taken, and what is refused by which name."""

from __future__ import annotations

import pytest

from asr_service.config import PhraseHintSettings, Settings
from asr_service.engine.interface import EngineInfo
from asr_service.errors import InvalidField, Unsupported
from asr_service.generated.asr.v1 import speech_pb2 as pb
from asr_service.server.requests import streaming_config, unary_config
from asr_service.types import Mode, PhraseHint

MODES = (Mode.STREAMING, Mode.ACCURATE)
INFO = EngineInfo("m", ("en",), MODES, ("phrase_hints",), max_streams=1, chunk_s=0.64)
SETTINGS = Settings(
    phrase_hints=PhraseHintSettings(max_phrases=6, max_characters=300, default_boost=7.0, default_boost_per_letter=2.0)
)


def taken(*groups: pb.PhraseHints, info: EngineInfo = INFO) -> tuple[PhraseHint, ...]:
    """What both calls make of the hints."""
    config = pb.RecognitionConfig(phrase_hints=groups)
    whole = unary_config(pb.RecognizeRequest(config=config), info, SETTINGS)
    streamed = streaming_config(pb.StreamingRecognitionConfig(config=config), info, SETTINGS)
    assert whole.phrase_hints == streamed.phrase_hints
    return whole.phrase_hints


def test_hints_are_normalised_as_the_models_words_are() -> None:
    groups = (
        pb.PhraseHints(phrases=["Kato", " Jean-Luc  O\u2019Brien ", "caf\u00e9"], boost=3.5),
        pb.PhraseHints(phrases=["'tis"]),
        pb.PhraseHints(phrases=["Al", "a b c"]),
    )
    assert taken(*groups) == (
        PhraseHint("kato", 3.5),
        PhraseHint("jean luc o'brien", 3.5),
        PhraseHint("cafe", 3.5),
        PhraseHint("'tis", 7.0),
        PhraseHint("al", 4.0),
        PhraseHint("a b c", 6.0),
    )
    assert taken() == ()


@pytest.mark.parametrize(
    ("phrase", "text"),
    [
        ("\u0141\u00f3d\u017a", "lodz"),
        ("S\u00f8ren \u0110or\u0111evi\u0107", "soren dordevic"),
        ("Stra\u00dfe", "strasse"),
        ("STRA\u1e9eE", "strasse"),
        ("\u00c6thelred \u00fe\u00f3r\u00f0r", "aethelred thordr"),
        ("b\u0153uf", "boeuf"),
        ("\u0130zm\u0131r", "izmir"),
        ("G\u0127arb \u0166", "gharb t"),
        ("caf\u00e9", "cafe"),
    ],
)
def test_letters_that_english_lacks_are_written_as_it_does(phrase: str, text: str) -> None:
    assert [hint.phrase for hint in taken(pb.PhraseHints(phrases=[phrase]))] == [text]


@pytest.mark.parametrize("hyphen", ["-", "\u2010", "\u2011", "\u2012", "\u2013"])
def test_what_is_typed_for_a_hyphen_is_one(hyphen: str) -> None:
    assert [hint.phrase for hint in taken(pb.PhraseHints(phrases=[f"Smith{hyphen}Jones"]))] == ["smith jones"]


@pytest.mark.parametrize("apostrophe", ["'", "\u2018", "\u2019", "\u02bc", "\u00b4", "`"])
def test_what_is_typed_for_an_apostrophe_is_one(apostrophe: str) -> None:
    assert taken(pb.PhraseHints(phrases=[f"Don{apostrophe}t"])) == (PhraseHint("don't", 7.0),)


@pytest.mark.parametrize(
    ("groups", "field", "limit"),
    [
        ([{}], "config.phrase_hints[0].phrases", "at least one"),
        ([{"phrases": ["a"] * 7}], "config.phrase_hints", "6"),
        ([{"phrases": ["a"] * 4}] * 2, "config.phrase_hints", "6"),
        ([{"phrases": ["a" * 80] * 2}] * 2, "config.phrase_hints", "300"),
        ([{"phrases": ["a", "b" * 101]}], "config.phrase_hints[0].phrases[1]", "100"),
        ([{"phrases": ["a"]}, {"phrases": ["b " * 11]}], "config.phrase_hints[1].phrases[0]", "10"),
        ([{"phrases": ["a"], "boost": 20.5}], "config.phrase_hints[0].boost", "0 to 20"),
        ([{"phrases": ["a"], "boost": 20.00001}], "config.phrase_hints[0].boost", "is 20.0000095; it must be 0 to 20"),
        ([{"phrases": ["a"], "boost": -1.0}], "config.phrase_hints[0].boost", "0 to 20"),
        ([{"phrases": ["a"], "boost": float("nan")}], "config.phrase_hints[0].boost", "0 to 20"),
        ([{"phrases": ["a\0"]}], "config.phrase_hints[0].phrases[0]", "a to z"),
        ([{"phrases": ["channel 4"]}], "config.phrase_hints[0].phrases[0]", "numbers as words"),
        ([{"phrases": ["\u5317\u4eac"]}], "config.phrase_hints[0].phrases[0]", "a to z"),
        ([{"phrases": ["", "a"]}], "config.phrase_hints[0].phrases[0]", "a to z"),
        ([{"phrases": ["' '"]}], "config.phrase_hints[0].phrases[0]", "a to z"),
    ],
)
def test_hints_that_break_a_limit_are_refused_by_field_and_limit(groups, field: str, limit: str) -> None:
    with pytest.raises(InvalidField) as told:
        taken(*(pb.PhraseHints(**group) for group in groups))
    assert told.value.field == field
    assert field in told.value.message and limit in told.value.message
    assert told.value.message.isascii() and len(told.value.message) < 400


@pytest.mark.parametrize(
    "groups",
    [
        [{"phrases": ["a"] * 6}],
        [{"phrases": ["a" * 100] * 3}],
        [{"phrases": ["b " * 10]}],
        [{"phrases": ["a"], "boost": n} for n in (0.5, 7.0, 20.0, 3.0, 0.0, 4.0)],
    ],
    ids=["phrases", "characters", "words", "a boost each"],
)
def test_hints_at_the_limits_are_taken(groups) -> None:
    assert len(taken(*(pb.PhraseHints(**group) for group in groups))) == sum(len(group["phrases"]) for group in groups)


def test_hints_are_refused_where_the_model_does_not_offer_them() -> None:
    with pytest.raises(Unsupported, match="phrase_hints"):
        taken(pb.PhraseHints(phrases=["kato"]), info=EngineInfo("m", ("en",), MODES, (), max_streams=1, chunk_s=0.64))
