"""The tokenizer's command: what it learns from, and the rules it records."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_service.evaluation.normalizer import NORMALIZER_VERSION
from asr_service.tokenizer import LETTERS, WORD_START, Normalization, WordPieces
from training import lm, tokenizer

TEXT = ["The sea, the SEA!", "Café “Noir”", "don't"] * 4


def test_texts_are_normalised_by_the_rules_that_the_file_names():
    pieces = tokenizer.train(TEXT, 64)
    assert pieces.normalization == Normalization("transcript", NORMALIZER_VERSION)
    assert set("".join(pieces.pieces[3:])) == {*LETTERS, WORD_START}
    cased = tokenizer.train(TEXT, 400, normalizer="nfc", byte_fallback=True)
    assert cased.normalization == Normalization("nfc", "1")
    assert "é" in cased.pieces
    assert cased.decode(cased.encode("Café “Noir”")) == "Café “Noir”"
    assert tokenizer.normalizer_of(cased).apply("e\u0301  x\n") == "é x"


def test_rules_of_another_version_are_refused_and_unrecorded_ones_are_the_transcripts():
    plain = WordPieces.train(["sea"], 40)
    assert tokenizer.normalizer_of(plain) is tokenizer.NORMALIZERS["transcript"]
    other = WordPieces.train(["sea"], 40, normalization=Normalization("transcript", "0"))
    with pytest.raises(ValueError, match=f"version 0; here is version {NORMALIZER_VERSION}"):
        tokenizer.normalizer_of(other)
    foreign = WordPieces.train(["sea"], 40, normalization=Normalization("german", "1"))
    with pytest.raises(ValueError, match="here is none of that name"):
        tokenizer.normalizer_of(foreign)
    tokenizer.check_transcripts(plain, Path("t.json"))
    with pytest.raises(ValueError, match=r"^t\.json: the tokenizer's texts .* here is none of that name"):
        tokenizer.check_transcripts(foreign, Path("t.json"))


@given(text=st.text(max_size=60))
def test_nfc_gives_single_spaces_and_can_be_encoded(text):
    normal = tokenizer.normalize_nfc(text)
    assert normal == tokenizer.normalize_nfc(normal)
    assert normal == " ".join(normal.split())
    assert WORD_START not in normal


@given(text=st.text(alphabet=st.sampled_from("thesand \u00a0éЖ'“!<>"), max_size=60))
def test_no_piece_reaches_from_one_word_into_the_next(text):
    """Training encodes each word once, wherever it stands."""
    pieces = tokenizer.train(["the sea and the sands", "<s> and then!"] * 4, 400, normalizer="nfc", byte_fallback=True)
    normal = tokenizer.normalize_nfc(text)
    assert pieces.encode(normal) == [token for word in normal.split() for token in pieces.encode(word)]


def test_the_frequent_characters_cover_the_text():
    assert tokenizer.covering(["ab" * 50 + "éü"], 0.98) == LETTERS
    assert tokenizer.covering(["é" * 50 + "ü"], 0.9) == LETTERS + "é"
    assert tokenizer.covering(["é" * 50 + "ü"], 1.0) == LETTERS + "éü"


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        (["--"], {}, "no text"),
        (["a"], {"character_coverage": 0.5}, "needs byte fall-back"),
        (["a"], {"character_coverage": 7.0, "byte_fallback": True}, "coverage is 7.0, must be 0 to 1"),
        (["a"], {"byte_fallback": True}, "too small"),
    ],
)
def test_what_cannot_be_learnt_is_refused(texts, options, message):
    with pytest.raises(ValueError, match=message):
        tokenizer.train(texts, 64, **options)


def test_the_command_reads_manifests_and_texts_and_says_what_is_spelled_in_bytes(tmp_path, monkeypatch, capsys):
    rows = [{"text": "The sea", "corpus": "a"}, {"text": "ZZZ", "corpus": "b"}]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    (tmp_path / "t.txt.gz").write_bytes(gzip.compress(("the sea shells " * 500 + "ü").encode()))
    out = tmp_path / "tokenizer.json"
    arguments = ["--manifest", tmp_path / "m.jsonl", "--text", tmp_path / "t.txt.gz", "--exclude-corpus", "b"]
    arguments += ["--vocab-size", 300, "--normalizer", "nfc", "--byte-fallback", "--out", out]
    monkeypatch.setattr(sys, "argv", ["tokenizer", *map(str, arguments)])
    tokenizer.main()
    pieces = WordPieces.load(out)
    assert pieces.normalization == Normalization("nfc", "1")
    assert not any("Z" in piece for piece in pieces.pieces)
    printed = capsys.readouterr().out
    assert f"\n{pieces.vocab_size} tokens, normalised by nfc, version 1; " in printed
    assert printed.startswith(f"300 tokens were asked for: the texts give no more than {pieces.vocab_size}\n")
    assert "bytes: " in printed
    assert "ü" in printed.splitlines()[-1]
    monkeypatch.setattr(
        sys, "argv", ["tokenizer", "--vocab-size", "9", "--text", str(tmp_path / "t.txt.gz"), "--out", "x"]
    )
    with pytest.raises(SystemExit, match="2"):
        tokenizer.main()
    assert "too small" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("t.txt", b"caf\xe9\n"),
        ("t.txt.gz", b"plain text"),
        ("t.txt.gz", gzip.compress(b"caf\xe9\n")),
        ("t.txt.gz", gzip.compress(b"the sea")[:-9]),
        ("t.txt.gz", gzip.compress(b"")[:10] + b"\xff" * 9),
    ],
    # gzip.compress writes the time of day, and a test's name must be the same in every process.
    ids=["no UTF-8", "no gzip", "no UTF-8 in gzip", "cut off", "damaged"],
)
@pytest.mark.parametrize("command", [tokenizer, lm])
def test_a_text_file_that_cannot_be_read_is_named(tmp_path, monkeypatch, capsys, command, name, data):
    path = tmp_path / name
    path.write_bytes(data)
    size = ["--vocab-size", "300"] if command is tokenizer else []
    monkeypatch.setattr(sys, "argv", ["command", *size, "--text", str(path), "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match="2"):
        command.main()
    (told,) = capsys.readouterr().err.splitlines()
    assert f"{path}: " in told


def test_the_command_names_a_line_of_a_manifest_that_is_no_json(tmp_path, monkeypatch, capsys):
    manifest = tmp_path / "m.jsonl"
    manifest.write_text('{"text": null}\n{"text"\n')
    arguments = ["--manifest", str(manifest), "--vocab-size", "300", "--out", str(tmp_path / "t.json")]
    monkeypatch.setattr(sys, "argv", ["tokenizer", *arguments])
    with pytest.raises(SystemExit, match="2"):
        tokenizer.main()
    assert "m.jsonl:2: not JSON" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("--character-coverage 0.5", "--character-coverage needs --byte-fallback"),
        ("--byte-fallback --character-coverage 7", "argument --character-coverage: must be 0 to 1, not 7.0"),
        ("--byte-fallback --character-coverage -1", "argument --character-coverage: must be 0 to 1, not -1.0"),
        ("--byte-fallback --character-coverage nan", "argument --character-coverage: must be 0 to 1, not nan"),
    ],
)
def test_a_coverage_without_effect_or_sense_is_refused_by_name(tmp_path, monkeypatch, capsys, options, told):
    (tmp_path / "t.txt").write_text("the sea shells\n")
    monkeypatch.chdir(tmp_path)
    arguments = ["--text", "t.txt", "--vocab-size", "300", "--out", "t.json", *options.split()]
    monkeypatch.setattr(sys, "argv", ["tokenizer", *arguments])
    with pytest.raises(SystemExit, match="2"):
        tokenizer.main()
    assert told in capsys.readouterr().err and not (tmp_path / "t.json").exists()


@pytest.mark.parametrize(("options", "rare"), [((), False), (("--character-coverage", "1"), True)])
def test_the_rarest_characters_are_spelled_in_bytes_unless_the_coverage_says_otherwise(
    tmp_path, monkeypatch, options, rare
):
    (tmp_path / "t.txt").write_text("the sea shells " * 500 + "\u00fc", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    arguments = ["--text", "t.txt", "--vocab-size", "300", "--normalizer", "nfc", "--byte-fallback", "--out", "t.json"]
    monkeypatch.setattr(sys, "argv", ["tokenizer", *arguments, *options])
    tokenizer.main()
    assert any("\u00fc" in piece for piece in WordPieces.load(tmp_path / "t.json").pieces) == rare
