"""N-grams: distributions that sum to one, KenLM's own numbers, and the command."""

from __future__ import annotations

import gzip
import itertools
import json
import math
import os
import random
import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_service.decoding.language_model import WordLanguageModel
from training import lm
from training.kneser_ney import BEGIN, END, FALLBACK_DISCOUNTS, UNKNOWN, estimate_model, prune_thresholds

LMPLZ = shutil.which("lmplz", path=os.environ.get("KENLM_BIN"))

sentences = st.lists(st.lists(st.sampled_from("abcdef"), max_size=6).map(" ".join), min_size=1, max_size=30)


def zipf_sentences(count: int, *, words: int = 60, seed: int = 0) -> list[str]:
    """Enough words of uneven frequency that every discount can be estimated."""
    rng = random.Random(seed)
    vocabulary = [f"w{index}" for index in range(words)]
    weights = [1 / (index + 1) for index in range(words)]
    return [" ".join(rng.choices(vocabulary, weights, k=rng.randint(1, 9))) for _ in range(count)]


def occurs_above(text, order, prune, vocabulary):
    """The n-grams of the highest order that are to be kept."""
    lines = [(BEGIN, *line.split(), END) for line in text]
    counts = Counter(line[i : i + order] for line in lines for i in range(len(line) - order + 1))
    for ngram, count in counts.items():
        if count > prune[-1] and (vocabulary is None or {*ngram} <= {*vocabulary, BEGIN, END}):
            yield ngram


@settings(deadline=None, max_examples=60)
@given(text=sentences, order=st.integers(2, 4), cuts=st.lists(st.integers(0, 2), max_size=3), limited=st.booleans())
def test_the_probabilities_after_every_history_sum_to_one(text, order, cuts, limited):
    prune = (0, *sorted(cuts))[:order]
    vocabulary = set("abc") if limited else None
    if not any(occurs_above(text, order, prune, vocabulary)):
        with pytest.raises(ValueError, match="gram to keep"):
            estimate_model(text, order, prune, vocabulary)
        return
    model = estimate_model(text, order, prune, vocabulary)
    histories = [()]
    for n in range(1, order):
        histories += itertools.product([BEGIN, *"abcg"], *[[*"abcg"]] * (n - 1))
    for history in histories:
        assert math.isclose(sum(model.probability(history, word) for word in model.words), 1.0, rel_tol=1e-9), history


@pytest.mark.parametrize("prune", [(), (0, 1), (0, 0, 2)])
def test_large_enough_texts_get_discounts_of_their_own(prune):
    model = estimate_model(zipf_sentences(400), 3, prune)
    for one, two, three in model.discounts[1:]:
        assert (one, two, three) != FALLBACK_DISCOUNTS
        assert 0 < one < 1
        assert two < 2
        assert three < 3
    assert estimate_model(["a b", "b a"], 2).discounts[1] == FALLBACK_DISCOUNTS


def test_a_bigram_worked_out_by_hand():
    model = estimate_model(["a b", "a a"], 2)
    d1, d2, _ = FALLBACK_DISCOUNTS
    # Different words before a: <s>, a; before b: a; before </s>: a, b. Five in all, over a, b, </s> and <unk>.
    left = (2 * d2 + d1) / 5
    unigram = {"a": (2 - d2) / 5 + left / 4, "b": (1 - d1) / 5 + left / 4, END: (2 - d2) / 5 + left / 4}
    assert model.probability((), "zebra") == model.probability((), UNKNOWN) == pytest.approx(left / 4)
    for word, value in unigram.items():
        assert model.probability((), word) == pytest.approx(value)
    # After <s>: a twice. After a: a, b and </s> once each.
    assert model.probability((BEGIN,), "a") == pytest.approx((2 - d2) / 2 + d2 / 2 * unigram["a"])
    assert model.probability((BEGIN,), "b") == pytest.approx(d2 / 2 * unigram["b"])
    assert model.probability(("a",), "b") == pytest.approx((1 - d1) / 3 + d1 * unigram["b"])


def arpa_values(path: Path) -> dict[str, tuple[float, ...]]:
    rows = (line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if "\t" in line)
    return {ngram: (float(probability), *map(float, rest)) for probability, ngram, *rest in rows}


@pytest.mark.skipif(LMPLZ is None, reason="KenLM's lmplz is not installed (KENLM_BIN names its folder)")
@pytest.mark.parametrize(
    ("order", "prune", "words"),
    [(2, (), None), (3, (), None), (3, (0, 0, 1), None), (4, (0, 0, 1, 2), None), (3, (0, 1), 30), (5, (), 30)],
)
@pytest.mark.parametrize("count", [4, 500])
def test_the_estimator_has_lmplz_numbers(tmp_path, order, prune, words, count):
    text = zipf_sentences(count)
    if count == 4:
        prune = ()
    vocabulary = None if words is None else {f"w{index}" for index in range(words)}
    options = {"order": order, "prune": prune, "vocabulary": vocabulary}
    ours = arpa_values(lm.estimate(text, tmp_path / "ours", **options))
    theirs = arpa_values(lm.estimate(text, tmp_path / "theirs", **options, lmplz=Path(LMPLZ)))
    assert ours.keys() == theirs.keys()
    for ngram, values in ours.items():
        # KenLM writes a back-off of 0 beside </s>, and none in the highest order.
        assert values == pytest.approx(theirs[ngram][: len(values)], abs=1e-5), ngram


def test_decoders_read_the_arpa_file_with_the_same_probabilities(tmp_path):
    text = zipf_sentences(200)
    model = estimate_model(text, 3, (0, 0, 1))
    path = lm.estimate(text, tmp_path / "lm.arpa", order=3, prune=(0, 0, 1))
    loaded = WordLanguageModel(path, sorted({word for line in text for word in line.split()}))
    for sentence in [*text[:20], "w1 zebra w2", "zebra", ""]:
        words = [BEGIN, *sentence.split(), END]
        expected = sum(math.log(model.probability(words[:index], words[index])) for index in range(1, len(words)))
        assert loaded.sentence(sentence.split()) == pytest.approx(expected, abs=1e-3)


def test_perplexity_leaves_unknown_words_out_and_counts_them(tmp_path):
    text = zipf_sentences(100)
    model = estimate_model(text, 2)
    path = lm.estimate(text, tmp_path / "lm.arpa", order=2)
    vocabulary = {word for line in text for word in line.split()}
    value, unknown, tokens = lm.perplexity(path, ["w1 zebra w0"], vocabulary)
    assert (unknown, tokens) == (1, 4)
    known = [((BEGIN,), "w1"), ((UNKNOWN,), "w0"), (("w0",), END)]
    assert math.log(value) == pytest.approx(-sum(math.log(model.probability(*pair)) for pair in known) / 3, abs=1e-4)


@pytest.mark.parametrize(
    ("order", "prune", "message"),
    [
        (1, (), "order is 1"),
        (7, (), "order is 7"),
        (2, (0, 0, 0), "3 pruning thresholds"),
        (3, (1, 1), "the first must be 0"),
        (3, (0, 2, 1), "none below the one before"),
    ],
)
def test_orders_and_thresholds_outside_the_limits_are_refused(order, prune, message):
    with pytest.raises(ValueError, match=message):
        prune_thresholds(order, prune)


def test_the_last_threshold_stands_for_the_orders_after_it():
    assert prune_thresholds(4, (0, 1)) == (0, 1, 1, 1)
    assert prune_thresholds(3, ()) == (0, 0, 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [(["a <s> b"], "special word '<s>'"), (["a <unk>"], "special word"), (["a", "b"], "no 4-gram"), ([], "no 4-gram")],
)
def test_texts_without_an_estimate_are_refused_and_leave_no_file(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        lm.estimate(text, tmp_path / "lm.arpa", order=4)
    assert list(tmp_path.iterdir()) == []


def test_a_text_too_large_for_dictionaries_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setattr("training.kneser_ney.MAX_WORDS", 10)
    with pytest.raises(ValueError, match="lmplz"):
        estimate_model(["a b c"] * 4, 2)


def test_a_missing_tool_is_named_with_the_remedy(tmp_path):
    with pytest.raises(ValueError, match=r"lmplz is not in .*source package"):
        lm.find_tool("lmplz", tmp_path)


def test_a_failing_tool_says_why(tmp_path):
    tool = tmp_path / "lmplz"
    tool.write_text("#!/bin/sh\necho it is full >&2\nexit 3\n")
    tool.chmod(0o755)
    with pytest.raises(RuntimeError, match=r"failed \(3\):\nit is full"):
        lm.estimate(["a"], tmp_path / "lm.arpa", lmplz=tool)
    assert [path.name for path in tmp_path.iterdir()] == ["lmplz"]


def test_lmplz_is_given_the_memory_that_is_asked_for(tmp_path):
    tool = tmp_path / "lmplz"
    tool.write_text('#!/bin/sh\nwhile [ "$1" != --arpa ]; do echo "$1" >> "$0.told"; shift; done; echo > "$2"\n')
    tool.chmod(0o755)
    lm.estimate(["a"], tmp_path / "lm.arpa", lmplz=tool, memory="50%")
    told = (tmp_path / "lmplz.told").read_text().split()
    assert told[told.index("-S") + 1] == "50%"


def run(monkeypatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["lm", *map(str, arguments)])
    lm.main()


def test_the_command_normalises_texts_and_manifests_and_leaves_corpora_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    utterances = [{"text": "Hello, YOU", "corpus": "an4"}, {"text": "SEVEN", "corpus": "fsdd_8k"}, {"text": "--"}]
    manifest = tmp_path / "train.jsonl"
    manifest.write_text("\n".join(map(json.dumps, utterances)), encoding="utf-8")
    (tmp_path / "lm.txt.gz").write_bytes(gzip.compress(b"A LINE\n\nANOTHER'S LINE\n"))
    (tmp_path / "cased.txt").write_text("One. “Two,” he said! Three\n", encoding="utf-8")
    options = ["--manifest", manifest, "--text", tmp_path / "lm.txt.gz", "--text", tmp_path / "cased.txt"]
    out = tmp_path / "lm.arpa"
    run(monkeypatch, *options, "--exclude-corpus", "fsdd_8k", "--order", 2, "--out", out, "--dev", manifest)
    values = arpa_values(out)
    assert {ngram for ngram in values if " " not in ngram} - {BEGIN, END, UNKNOWN} == {
        "a",
        "line",
        "another's",
        "one",
        "two",
        "he",
        "said",
        "three",
        "hello",
        "you",
    }
    assert {"<s> a", "line </s>", "two he", "<s> three", "hello you"} <= values.keys()
    printed = capsys.readouterr().out
    assert "10 words" in printed
    assert "1 of 5 tokens unknown" in printed


def test_transcripts_skip_empty_lines_and_texts_of_null_and_name_a_line_that_is_no_json(tmp_path):
    manifest = tmp_path / "train.jsonl"
    manifest.write_text('{"text": "one"}\n\n{"text": null}\n')
    assert list(lm.transcripts(manifest)) == ["one"]
    manifest.write_text('{"text": "one"}\n{"text"\n')
    with pytest.raises(ValueError, match=r"train\.jsonl:2: not JSON"):
        list(lm.transcripts(manifest))


def test_the_command_refuses_a_file_beyond_the_limit_and_a_trie_without_the_tool(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    text = tmp_path / "text"
    text.write_text("a b c\nb c\n")
    with pytest.raises(SystemExit, match="more than 10: prune more"):
        run(monkeypatch, "--text", text, "--out", tmp_path / "lm.arpa", "--max-bytes", 10)
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch, "--text", text, "--out", tmp_path / "lm.kenlm")
    assert "build_binary" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch, "--out", tmp_path / "lm.arpa")


def test_a_trie_goes_where_no_folder_is_yet_and_a_draft_that_failed_is_gone(tmp_path):
    tool = tmp_path / "build_binary"
    tool.write_text('#!/bin/sh\nfor last; do :; done\necho trie > "$last"\n[ -z "$FAIL" ]\n')
    tool.chmod(0o755)
    trie = lm.build_trie(tmp_path / "arpa", tmp_path / "new" / "lm.kenlm", bits=8, build_binary=tool)
    assert trie.read_text() == "trie\n"
    tool.write_text(tool.read_text().replace("$FAIL", "now"))
    with pytest.raises(RuntimeError):
        lm.build_trie(tmp_path / "arpa", tmp_path / "other" / "lm.kenlm", bits=8, build_binary=tool)
    assert list((tmp_path / "other").iterdir()) == []


def test_thresholds_that_are_no_numbers_are_refused_in_words(monkeypatch, capsys):
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch, "--text", "text", "--prune", "0,x", "--out", "lm.arpa")
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.endswith("argument --prune: must be whole numbers, joined by commas, not '0,x'")


def test_bits_of_a_file_that_is_no_trie_are_refused(tmp_path, monkeypatch, capsys):
    text, out = tmp_path / "text", tmp_path / "lm.arpa"
    text.write_text("a b c\nb c\n")
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch, "--text", text, "--order", 2, "--bits", 3, "--out", out)
    assert f"--bits is of a trie's values, and {out} is none" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(("options", "bits"), [((), "8"), (("--bits", 3), "3")])
def test_a_trie_has_the_bits_that_are_asked_for(tmp_path, monkeypatch, options, bits):
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    (tmp_path / "build_binary").write_text('#!/bin/sh\nfor last; do :; done\necho "$@" > "$last"\n')
    (tmp_path / "build_binary").chmod(0o755)
    (tmp_path / "text").write_text("a b c\nb c\n")
    out = tmp_path / "lm.kenlm"
    run(monkeypatch, "--text", tmp_path / "text", "--order", 2, *options, "--out", out)
    assert out.read_text().startswith(f"-q {bits} -b {bits} ")


def test_texts_that_are_not_spelled_out_are_counted_on_stderr(tmp_path, capsys):
    text, manifest = tmp_path / "t.txt", tmp_path / "m.jsonl"
    text.write_text("In 1984 he said.\nNothing more.\n3 & 4\n")
    manifest.write_text(
        json.dumps({"text": "one % more", "corpus": "a", "audio_filepath": "a.wav", "duration": 1.0}) + "\n"
    )
    assert list(lm.text_sentences(text)) == ["in he said", "nothing more"]
    assert list(lm.transcripts(manifest)) == ["one more"]
    assert capsys.readouterr().err.splitlines() == [
        f"{text}: 2 of 3 texts are not spelled out (the first has '1984'): those words are missing",
        f"{manifest}: 1 of 1 texts are not spelled out (the first has '%'): those words are missing",
    ]
