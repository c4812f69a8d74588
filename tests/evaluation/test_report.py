"""The report: one file without a network, every text escaped, all utterances in it."""

import base64
import dataclasses
import hashlib
import html.parser
import json
import re
import wave

import numpy as np
import pytest

from asr_service.errors import ConfigError
from asr_service.evaluation.output import Output
from asr_service.evaluation.reference import Reference
from asr_service.evaluation.report import write_report
from asr_service.evaluation.report.plots import ceiling, ticks
from asr_service.evaluation.report.sound import data_uris
from asr_service.evaluation.scoring import score
from asr_service.evaluation.significance import compare
from asr_service.types import Word
from tests.evaluation.made_up import evaluation

ATTACK = """</script><script>alert(1)</script><img src=x onerror=alert(2)>"'&{{ 7*7 }}<!--"""


class Page(html.parser.HTMLParser):
    """Elements with their attributes, and the text inside scripts."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.scripts, self.words, self._in = [], [], "", []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._in.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        while self._in and self._in.pop() != tag:
            pass

    def handle_data(self, data):
        if self._in and self._in[-1] == "script":
            self.scripts[-1] += data
        else:
            self.words += data

    @property
    def data(self):
        return json.loads(self.scripts[0])


def page(tmp_path, one, other=None, **kwargs):
    path = tmp_path / "report.html"
    write_report(path, one, compare(one, other) if other is not None else None, **kwargs)
    return Page(path.read_text(encoding="utf-8"))


def test_every_utterance_is_in_the_data_and_the_figures_on_the_page(tmp_path):
    one = evaluation(30)
    shown = page(tmp_path, one)
    assert [row[0] for row in shown.data["rows"]] == [row.reference.utterance_id for row in one.utterances]
    assert shown.data["rows"][3][6] == [
        one.utterances[3].words.errors,
        one.utterances[3].scored_hypothesis,
        one.utterances[3].alignment,
    ]
    assert f"{100 * one.wer:.2f} %" in shown.words
    assert f"{100 * one.wer_interval.low:.2f} – {100 * one.wer_interval.high:.2f} %" in shown.words
    assert "basic-1" in shown.words


def test_two_systems_stand_side_by_side_with_the_verdict(tmp_path):
    good, bad = evaluation(150, error_rate=0.05), evaluation(150, error_rate=0.4, seed=3, system="worse")
    shown = page(tmp_path, good, other=bad)
    assert "en-s accurate is better than worse: WER" in shown.words
    assert shown.data["systems"] == ["en-s accurate", "worse"]
    assert all(len(row) == 8 for row in shown.data["rows"])
    same = page(tmp_path, good, other=good)
    assert "No difference shown" in same.words


def test_the_second_system_is_broken_down_by_what_the_first_systems_file_knows(tmp_path):
    one, other = evaluation(40), evaluation(40, seed=9)
    bare = {"fields": {}, "duration_s": None}
    rows = [dataclasses.replace(row, reference=dataclasses.replace(row.reference, **bare)) for row in other.utterances]
    shown = page(tmp_path, one, other=dataclasses.replace(other, utterances=tuple(rows[::-1])))
    counts = [sum(a.get("class") == f"dot series-{name} back" for _, a in shown.elements) for name in "ab"]
    assert counts[0] == counts[1] > 15


@pytest.mark.parametrize("with_lengths", ["a", "b"])
def test_systems_are_grouped_alike_where_only_one_knows_how_long_some_recordings_are(tmp_path, with_lengths):
    def shortened(one):
        rows = [
            dataclasses.replace(
                row,
                reference=dataclasses.replace(row.reference, duration_s=None),
                output=dataclasses.replace(row.output, timing=None if number % 2 else row.output.timing),
            )
            for number, row in enumerate(one.utterances)
        ]
        return dataclasses.replace(one, utterances=tuple(rows))

    pair = [evaluation(40), shortened(evaluation(40, seed=9))]
    one, other = pair if with_lengths == "a" else pair[::-1]
    counts = [
        [sum(a.get("class") == f"dot series-{name} back" for _, a in shown.elements) for name in "ab"]
        for shown in (page(tmp_path, one, other=other), page(tmp_path, pair[0], other=pair[0]))
    ]
    assert counts[0] == counts[1], "as where both know all"


def test_nothing_is_fetched_and_only_our_script_may_run(tmp_path):
    shown = page(tmp_path, evaluation(10), other=evaluation(10, seed=9))
    for tag, attributes in shown.elements:
        assert tag not in {"link", "iframe", "img", "object", "base"}
        assert not {"src", "href", "action", "srcset"} & set(attributes)
        assert not [name for name in attributes if name.startswith("on")]
    (policy,) = [a["content"] for t, a in shown.elements if a.get("http-equiv") == "Content-Security-Policy"]
    digest = base64.b64encode(hashlib.sha256(shown.scripts[1].encode()).digest()).decode()
    assert policy.startswith("default-src 'none';") and f"script-src 'sha256-{digest}'" in policy
    assert "http" not in policy


def attacked(normalizer="none"):
    reference = Reference("u" + ATTACK, ATTACK, speaker=ATTACK, corpus=ATTACK, fields={ATTACK: ATTACK}, duration_s=3.0)
    other = Reference("v", "plain words", speaker="s", corpus="c", fields={ATTACK: "x"}, duration_s=2.0)
    outputs = [
        Output(reference.utterance_id, "<b>" + ATTACK, (Word("<b>", 0.0, 0.1, 0.5),)),
        Output("v", "plain " + ATTACK),
    ]
    references = [reference, other]
    references += [Reference(f"w{n}", "more words", speaker=ATTACK, fields={ATTACK: ATTACK}) for n in range(3)]
    outputs += [Output(f"w{n}", "more") for n in range(3)]
    return score(
        references, outputs, system=ATTACK, normalizer=normalizer, about={"model_hash": ATTACK, ATTACK: ATTACK}
    )


@pytest.mark.parametrize("compared", [False, True])
def test_texts_of_others_are_escaped_wherever_they_stand(tmp_path, compared):
    shown = page(tmp_path, attacked(), other=attacked() if compared else None, vocabulary={"plain"})
    tags = {tag for tag, _ in shown.elements}
    assert len(shown.scripts) == 2  # the data and our own
    assert not tags & {"img", "b"}
    assert not [1 for _, attributes in shown.elements for name in attributes if name.startswith("on")]
    assert shown.data["rows"][0][0] == "u" + ATTACK  # it is shown as it is
    assert ATTACK in shown.words
    assert "{{ 7*7 }}" in shown.words and "49<" not in shown.words


def test_an_evaluation_of_plain_texts_makes_a_page_too(tmp_path):
    assert "WER" in page(tmp_path, score([""], ["uh"])).words
    assert "WER" in page(tmp_path, score(["a b"], ["a b"])).words
    assert "WER" in page(tmp_path, score(["", "a"], ["", ""]), vocabulary=set()).words


def recording(folder, name, seconds):
    path = folder / name
    samples = (np.sin(np.arange(int(16000 * seconds)) / 20) * 8000).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(samples.tobytes())
    return path


def test_one_utterance_has_no_interval_on_the_page(tmp_path):
    alone = page(tmp_path, evaluation(1), other=evaluation(1, seed=9))
    assert alone.words.count("no interval: one utterance") == 4, "the verdict, the difference and both systems"
    assert "% interval" not in alone.words and "nothing to draw" in alone.words
    grouped = page(tmp_path, evaluation(3, speakers=2))
    titles = [a["title"] for _, a in grouped.elements if a.get("class") == "track"]
    ranges = [a for _, a in grouped.elements if "range" in a.get("class", "").split()]
    assert titles.count("no interval: one utterance") == len(titles) - len(ranges) > 0 and ranges


def test_recordings_are_put_in_as_they_are_and_parts_as_pcm(tmp_path):
    path = recording(tmp_path, "a.wav", 2.0)
    references = [
        Reference("whole", "a b", path),
        Reference("part", "a b", path, offset_s=0.5, duration_s=1.0),
        Reference("begin", "a b", path, duration_s=0.5),
    ]
    sounds = page(tmp_path, score(references, ["a", "", "a b"]), audio=True).data["sounds"]
    assert base64.b64decode(sounds["whole"].removeprefix("data:audio/wav;base64,")) == path.read_bytes()
    sizes = {name: len(base64.b64decode(uri.partition(",")[2])) for name, uri in sounds.items()}
    assert sizes == {"whole": 64044, "part": 32044, "begin": 16044}


def test_recordings_are_bounded_worst_first_and_what_cannot_be_read_is_named(tmp_path):
    references = [Reference(str(n), "a", recording(tmp_path, f"{n}.wav", 1.0)) for n in range(3)]
    references.insert(1, Reference("gone", "a", tmp_path / "gone.wav"))
    sounds, unreadable = data_uris([*references, Reference("text only", "a")], max_bytes=70_000)
    assert list(sounds) == ["0", "1"]
    assert unreadable == ["gone"]
    assert "1 recordings could not be read: gone" in page(tmp_path, score(references, ["a"] * 4), audio=True).words


def test_without_being_asked_no_recording_is_put_in(tmp_path):
    one = score([Reference("a", "a", recording(tmp_path, "a.wav", 1.0))], ["a"])
    assert page(tmp_path, one).data["sounds"] == {}


def test_the_style_sheet_knows_dark_and_narrow(tmp_path):
    path = tmp_path / "report.html"
    write_report(path, evaluation(3))
    style = re.search(r"<style>(.*?)</style>", path.read_text(), re.DOTALL)[1]
    assert "prefers-color-scheme: dark" in style and "max-width: 640px" in style and "url(" not in style


@pytest.mark.parametrize("upper", [0.011, 0.05, 0.3, 1.0, 1.05, 7.3, 120, 4000])
def test_ticks_are_few_round_and_reach_the_ceiling(upper):
    steps = ticks(upper)
    assert 2 <= len(steps) <= 7 and steps[0] == 0 and steps[-1] <= upper * 1.0001
    assert ceiling(upper) >= upper and ticks(ceiling(upper))[-1] == pytest.approx(ceiling(upper), rel=0.2)


def test_a_path_that_cannot_be_written_is_said(tmp_path):
    with pytest.raises(ConfigError, match="cannot write"):
        write_report(tmp_path / "absent" / "x.html", evaluation(2))
