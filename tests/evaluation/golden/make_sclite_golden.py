"""Writes sclite.json: made-up sentence pairs and what NIST's sclite counts in them. Run it where sclite is installed:

    python tests/evaluation/golden/make_sclite_golden.py

Debian's package `sctk` has the program; SCLITE may name another. The pairs come from a fixed seed.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

SCLITE = os.environ.get("SCLITE", "/usr/lib/sctk/bin/sclite")
UTTERANCES = 240
SPEAKERS = ("ann", "bob", "cyd", "dan", "eve")
# Few words make many ties; the long list makes ordinary sentences.
FEW = ("a", "b", "c")
MANY = (
    "the",
    "small",
    "boat",
    "went",
    "over",
    "cold",
    "water",
    "while",
    "nine",
    "old",
    "birds",
    "sang",
    "don't",
    "we'll",
)


def pairs() -> list[tuple[str, str, str]]:
    """(utterance id, reference, hypothesis) of made-up sentences."""
    generator = random.Random(20261121)
    made = []
    for number in range(UTTERANCES):
        words = FEW if number % 2 else MANY
        reference = [generator.choice(words) for _ in range(generator.choice((0, 1, 2, 3, 5, 8, 13, 21)))]
        kind = number % 5
        if kind == 0:  # unrelated to the reference: the most ties
            hypothesis = [generator.choice(words) for _ in range(generator.randint(0, 12))]
        elif kind == 1:  # a shifted copy with a word said twice
            hypothesis = [*reference[1:], *reference[-1:], *reference[-1:]]
        else:
            hypothesis = []
            for word in reference:
                draw = generator.random()
                if draw > 0.12:
                    hypothesis.append(generator.choice(words) if draw < 0.24 else word)
                if draw > 0.9:
                    hypothesis.append(generator.choice(words))
        speaker = SPEAKERS[number % len(SPEAKERS)]
        made.append((f"{speaker}-{number:04d}", " ".join(reference), " ".join(hypothesis)))
    return made


def run_sclite(sentences: list[tuple[str, str, str]]) -> dict[str, str]:
    """sclite's alignments (`pra`) and its tables of counts (`rsum`) and of percentages (`sum`)."""
    with tempfile.TemporaryDirectory() as folder:
        for name, side in (("ref.trn", 1), ("hyp.trn", 2)):
            lines = "".join(f"{sentence[side]} ({sentence[0]})\n" for sentence in sentences)
            Path(folder, name).write_text(lines, encoding="utf-8")
        subprocess.run(
            [SCLITE, "-r", "ref.trn", "trn", "-h", "hyp.trn", "trn", "-i", "spu_id", "-o", "pra", "rsum", "sum"],
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        return {
            kind: Path(folder, f"hyp.trn.{suffix}").read_text(encoding="utf-8")
            for kind, suffix in (("pra", "pra"), ("rsum", "raw"), ("sum", "sys"))
        }


def recordings() -> tuple[list[str], list[str]]:
    """Lines of an STM and of a CTM: two recordings in segments, heard with errors, one word after the other."""
    generator = random.Random(5)
    stm, ctm = [], []
    for recording in ("talk-a", "talk-b"):
        time_s = 1.0
        for segment in range(30):
            words = [generator.choice(MANY) for _ in range(generator.randint(1, 12))]
            begin_s = time_s
            for word in words:
                draw = generator.random()
                if draw > 0.1:
                    ctm.append(f"{recording} 1 {time_s:.2f} 0.30 {generator.choice(MANY) if draw < 0.2 else word}")
                if draw > 0.93:
                    ctm.append(f"{recording} 1 {time_s + 0.31:.2f} 0.05 {generator.choice(MANY)}")
                time_s += 0.4
            speaker = SPEAKERS[segment % len(SPEAKERS)]
            stm.append(f"{recording} 1 {speaker} {begin_s:.2f} {time_s:.2f} {' '.join(words)}")
            time_s += generator.choice((0.0, 0.5, 2.0))
    return stm, ctm


def run_sclite_on_segments(stm: list[str], ctm: list[str]) -> str:
    """sclite's table of counts for words with times against segments."""
    with tempfile.TemporaryDirectory() as folder:
        for name, rows in (("ref.stm", stm), ("hyp.ctm", ctm)):
            Path(folder, name).write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
        command = [SCLITE, "-r", "ref.stm", "stm", "-h", "hyp.ctm", "ctm", "-o", "rsum"]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        return Path(folder, "hyp.ctm.raw").read_text(encoding="utf-8")


def counts(alignments: str) -> dict[str, list[int]]:
    """[correct, substitutions, deletions, insertions] of each utterance."""
    found = re.findall(r"^id: \((\S+)\)\nScores: \(#C #S #D #I\) (\d+) (\d+) (\d+) (\d+)$", alignments, re.MULTILINE)
    return {name: [int(number) for number in numbers] for name, *numbers in found}


def table(text: str) -> dict[str, list[float]]:
    """Sentences, words and the columns after them of each row, by speaker; `Sum` and `Sum/Avg` are named so."""
    rows = re.findall(r"^\s*\|\s*(\S+)\s*\|\s*(\d+)\s+(\d+)\s*\|\s*([\d.]+(?:\s+[\d.]+)+)\s*\|$", text, re.MULTILINE)
    return {
        name: [float(number) for number in (sentences, words, *rest.split())] for name, sentences, words, rest in rows
    }


def _one_row_a_line(golden: dict[str, Any]) -> str:
    rows = ",\n".join(json.dumps(row) for row in golden["utterances"])
    tables = [
        f'"{name}": {{\n' + ",\n".join(f"{json.dumps(key)}: {row}" for key, row in golden[name].items()) + "\n}"
        for name in ("speaker_counts", "speaker_percentages", "segment_counts")
    ]
    texts = [f'"{name}": {json.dumps(golden[name], indent=0)}' for name in ("stm", "ctm")]
    return ",\n".join([f'{{"utterances": [\n{rows}\n]', *tables, *texts]) + "}\n"


def main() -> None:
    sentences = pairs()
    output = run_sclite(sentences)
    by_utterance = counts(output["pra"])
    assert by_utterance.keys() == {name for name, _, _ in sentences}, "sclite lost utterances"
    stm, ctm = recordings()
    golden = {
        "utterances": [
            {"id": name, "reference": reference, "hypothesis": hypothesis, "counts": by_utterance[name]}
            for name, reference, hypothesis in sentences
        ],
        "speaker_counts": table(output["rsum"]),
        "speaker_percentages": table(output["sum"]),
        "segment_counts": table(run_sclite_on_segments(stm, ctm)),
        "stm": stm,
        "ctm": ctm,
    }
    path = Path(__file__).with_name("sclite.json")
    path.write_text(_one_row_a_line(golden), encoding="utf-8")
    print(f"{len(sentences)} utterances, {len(golden['speaker_counts'])} rows a table: {path.name}")


if __name__ == "__main__":
    main()
