"""`asr compare`: its verdict, its report, and its refusals with the whole list."""

import json

import pytest

from asr_service.cli import main
from asr_service.evaluation.significance import compare
from asr_service.evaluation.store import load, save
from tests.evaluation.made_up import evaluation


@pytest.fixture
def saved(tmp_path):
    def write(name, **settings):
        path = tmp_path / f"{name}.json"
        save(evaluation(system=name, **settings), path)
        return str(path)

    return write


def test_prints_both_systems_the_tests_and_the_verdict(saved, capsys):
    assert main(["compare", saved("good", count=150, error_rate=0.05), saved("bad", count=150, error_rate=0.4)]) == 0
    printed = capsys.readouterr().out
    assert "normaliser basic-1" in printed
    assert "MAPSSWE           p = " in printed and "paired bootstrap  p = " in printed
    assert "good is better than bad" in printed
    assert "better with good: set/" in printed and "more" in printed
    assert "one comparison: p-values need no correction" in printed


def test_the_draws_are_those_asked_for_and_what_decides_is_the_corrected_p_value(saved, tmp_path, capsys):
    rates = {"a": 0.2, "b": 0.3, "c": 0.25}
    paths = [saved(name, seed=seed, count=80, error_rate=rate) for seed, (name, rate) in enumerate(rates.items())]
    assert main(["compare", *paths, "--samples", "150", "--seed", "9", "--changes", "2"]) == 0
    printed = capsys.readouterr().out
    loaded = [load(tmp_path / f"{name}.json") for name in rates]
    for name, one in zip(rates, loaded, strict=True):
        assert f"{name}  WER {100 * one.wer:6.2f} % [" in printed
        assert f"CER {100 * one.cer:6.2f} %  SER {100 * one.ser:5.1f} %" in printed
    blocks = printed.split("\n\n")[1:4]
    for block, pair in zip(blocks, compare(*loaded, samples=150, seed=9).pairs, strict=True):
        first, second = pair.systems
        assert f"paired bootstrap  p = {pair.bootstrap.p:.4g} (150 draws, seed 9)" in block
        assert f"decisive          p = {pair.adjusted_p:.4g} (" in block
        assert f"{pair.wins} with fewer errors in {first}, {pair.losses} in {second}, {pair.ties} alike" in block
        for name, count in ((first, pair.wins), (second, pair.losses)):
            assert f"better with {name}: {count - 2} more" in block
    assert any(f"{pair.p:.4g}" != f"{pair.adjusted_p:.4g}" for pair in compare(*loaded, samples=150, seed=9).pairs)


def test_noise_is_no_difference_shown(saved, capsys):
    assert main(["compare", saved("one", seed=1), saved("other", seed=2), "--changes", "0"]) == 0
    printed = capsys.readouterr().out
    assert "No difference shown between one and other" in printed
    assert "set/" not in printed


def test_of_one_utterance_it_says_that_there_is_no_interval(saved, capsys):
    assert main(["compare", saved("one", count=1), saved("other", count=1, error_rate=0.9, seed=5)]) == 0
    printed = capsys.readouterr().out
    assert "in 1 utterance, normaliser basic-1, costs equal; no interval: one utterance" in printed
    assert "points (no interval: one utterance)\n  paired bootstrap  p = 1 (nothing to draw)" in printed
    assert "[" not in printed


def test_several_systems_are_compared_pair_by_pair(saved, capsys):
    assert main(["compare", *(saved(name, seed=seed) for seed, name in enumerate("abc"))]) == 0
    printed = capsys.readouterr().out
    assert "a less b" in printed and "a less c" in printed and "b less c" in printed
    assert "3 comparisons by Holm's method" in printed


def test_writes_a_report_of_two(saved, tmp_path, capsys):
    out = tmp_path / "out.html"
    assert main(["compare", saved("a"), saved("b", seed=5), "--html", str(out)]) == 0
    assert "No difference shown" in out.read_text(encoding="utf-8")


def test_the_report_has_the_draws_that_were_asked_for(saved, tmp_path, capsys):
    out = tmp_path / "out.html"
    assert main(["compare", saved("a"), saved("b", seed=5), "--samples", "300", "--seed", "4", "--html", str(out)]) == 0
    assert "(300 draws, seed 4)" in capsys.readouterr().out
    page = out.read_text(encoding="utf-8")
    assert "300 draws" in page and "2000 draws" not in page


def test_other_utterances_are_exit_code_2_with_every_one_named(saved, capsys):
    assert main(["compare", saved("long", count=20), saved("short", count=12)]) == 2
    problems = capsys.readouterr().err.splitlines()
    assert len(problems) == 8
    assert problems[0] == "asr compare: short: utterance set/00012.flac is missing"


def test_everything_wrong_with_every_file_is_listed(saved, tmp_path, capsys):
    broken = tmp_path / "broken.json"
    document = json.loads((tmp_path / saved("x", count=4)).read_text())
    for row in document["results"][:2]:
        del row["alignment"]
    broken.write_text(json.dumps(document))
    assert main(["compare", str(broken), str(tmp_path / "absent.json")]) == 2
    problems = capsys.readouterr().err
    assert problems.count("alignment is missing") == 2
    assert "No such file" in problems


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "needs two evaluations"),
        (["b", "c", "--html", "x.html"], "--html shows two systems side by side, not 3"),
        (["b", "--audio"], "--audio needs --html"),
        (["b", "--samples", "5"], "--samples must be at least 100"),
        (["b", "--changes", "-1"], "--changes"),
        (["b", "--seed", "-1"], "--seed"),
    ],
)
def test_wrong_usage_is_exit_code_2(options, message, capsys):
    assert main(["compare", "a", *options]) == 2
    assert message in capsys.readouterr().err
