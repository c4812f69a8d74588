"""Lines, JSON and pictures of a load; what was not measured is told as such."""

from __future__ import annotations

import dataclasses
import importlib.util
import json

import pytest

from asr_service.bench.figures import figures
from asr_service.bench.output import document, lines, ramp_line, write_json
from asr_service.bench.plots import write_png
from asr_service.bench.ramp import Objective, RampResult
from asr_service.errors import ConfigError
from tests.bench.made_up import call_of, final, record, text_clip
from tests.bench.test_figures import CAT, LOAD, OTHER_CAT, RIGHT, WRONG, load_record, two_streams

GOOD = figures(load_record(*two_streams(RIGHT)), alone=two_streams(RIGHT))
RULE = Objective()


def late(made):
    assert made.generator_late is not None
    return dataclasses.replace(made, generator_late=dataclasses.replace(made.generator_late, p99=0.2))


def test_what_the_first_partial_counts_from_is_told():
    text = "\n".join(lines(GOOD, RULE))
    assert "\n  partial after its first word  p50 " in text


def test_a_rate_is_told_with_its_normaliser_interval_and_what_it_is_alone():
    under_load, alone = (
        [record(call_of(clip), (2.2, answer), stream=stream) for stream, clip in enumerate((CAT, OTHER_CAT))]
        for answer in (WRONG, RIGHT)
    )
    text = "\n".join(lines(figures(load_record(*under_load), alone=alone), RULE))
    assert "33.33 % [" in text and "basic-1, 95 % bootstrap over utterances, repetitions as one" in text
    assert "0.00 %: +33.33 points by the load, 2 clips with other words" in text
    assert "broken: " in text
    one = figures(load_record(two_streams(WRONG)[0]))
    assert "basic-1, no interval: one utterance" in "\n".join(lines(one, RULE))


def test_of_no_words_no_rate_is_told(tmp_path):
    call = record(call_of(text_clip("noise")), (1.0, final(("uh", 0.2, 0.4))))
    nobody = figures(load_record(call))
    assert "WER                           none: no stream that held has played a word" in "\n".join(lines(nobody, RULE))
    write_json(tmp_path / "b.json", document({}, RULE, [nobody], None))
    (found,) = json.loads((tmp_path / "b.json").read_text())["runs"]
    assert found["quality"] is None and found["worse_by_points"] is None


def test_what_the_generator_takes_for_all_is_of_the_streams_that_had_a_place():
    calls = [record(call_of(CAT), (2.2, RIGHT), stream=stream) for stream in range(4)]
    calls[1].status = calls[2].status = "UNAVAILABLE"
    calls[3].status, calls[3].reason, calls[3].sent_s = "RESOURCE_EXHAUSTED", "NO_CAPACITY", 0.0
    made = load_record(*calls, load=dataclasses.replace(LOAD, streams=4))
    text = "\n".join(lines(figures(dataclasses.replace(made, generator_cpu_s=0.06)), RULE))
    assert "generator, for each stream    1.000 % of a core, 3.0 % for all" in text


def test_a_load_whose_generator_was_late_tells_no_latency():
    text = "\n".join(lines(late(GOOD), RULE))
    assert "INVALID: the generator was late" in text
    assert "first partial" not in text and "objective" not in text and "slope" not in text
    assert "WER" in text  # the words are what they are


def test_json_has_every_figure_and_null_for_what_was_not_measured(tmp_path):
    nothing = figures(load_record(*(record(call_of(CAT), stream=stream) for stream in range(2))))
    write_json(tmp_path / "b.json", document({"commit": "c"}, RULE, [GOOD, nothing], RampResult(2, 4)))
    found = json.loads((tmp_path / "b.json").read_text())
    assert found["about"]["commit"] == "c" and found["ramp"]["largest"] == 2
    good, bad = found["runs"]
    assert good["valid"] is True and good["word"]["count"] == 6 and len(good["word_quantiles"]) == 101
    assert good["worse_by_points"] == 0.0
    assert bad["word"] is None and bad["broken"] == ["no word came"]
    with pytest.raises(ConfigError, match="cannot write"):
        write_json(tmp_path / "none" / "b.json", {})


def test_the_figures_of_all_lines_begin_in_one_column():
    text = [line for line in lines(GOOD, RULE) if line.startswith("  ")]
    assert any(line.startswith("  final after 800 ms of silence ") for line in text)
    assert all(line[31] == " " != line[32] for line in text)


def test_one_of_a_thing_is_not_told_as_several():
    one = figures(load_record(two_streams(RIGHT)[0], load=dataclasses.replace(LOAD, streams=1)))
    text = "\n".join(lines(one, RULE))
    assert text.startswith("1 stream for 10 s") and "in 1 clip (1 different)" in text
    assert ramp_line(RampResult(1, 2)).startswith("1 stream held;")


def test_the_slope_of_the_lag_is_told_of_a_minute_or_more():
    assert GOOD.slope is not None
    assert not [line for line in lines(GOOD, RULE) if "lag slope" in line]
    assert [line for line in lines(dataclasses.replace(GOOD, seconds=60.0), RULE) if "lag slope" in line]


def test_the_ramps_result_says_why_it_ended():
    assert "64 streams held; at 68 the objective broke" in ramp_line(RampResult(64, 68))
    assert "32 held" in ramp_line(RampResult(32, None, 64)) and "generator was late at 64" in ramp_line(
        RampResult(32, None, 64)
    )


def test_pictures_are_drawn_also_of_loads_that_have_little(tmp_path):
    pytest.importorskip("matplotlib")
    bare = figures(load_record(*(record(call_of(CAT), stream=stream) for stream in range(2))))
    write_png(tmp_path / "b.png", [GOOD, late(GOOD), bare], RULE)
    assert (tmp_path / "b.png").read_bytes().startswith(b"\x89PNG")


def test_pictures_without_matplotlib_are_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="matplotlib"):
        write_png(tmp_path / "b.png", [GOOD], RULE)
