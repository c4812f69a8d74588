"""RESULTS.md from the records in training/results/*.json.

A record is what `python -m training.results` measured of one recipe: its runs, and the word errors of every test
utterance, by corpus and system, so that every figure and interval here is computed from counts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from asr_service.evaluation.bootstrap import wer_interval

SYSTEMS = ("accurate, LM", "accurate, no LM", "streaming, LM", "streaming, no LM")
# Two-sided 95 % quantiles of Student's t by degrees of freedom.
_T95 = {1: 12.71, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}

_HEAD = """# Results

Made by `python -m training.results` from `training/results/*.json`; do not edit. Every row is one command, given below
it. Word error rates are in percent of the reference words, on dev, all normalised alike (normaliser {version}); in
brackets the 95 % interval of a bootstrap over utterances (2,000 draws), for several seeds of their mean. After it, each
seed's own, and ± half the 95 % interval of the mean over seeds by Student's t. Accuracy is the share of utterances
without an error, with Wilson's interval. *accurate* hears the whole utterance, *streaming* its chunks, and what a
bundle looks ahead of them. *LM* is the bundle as it is: pronunciation lexicon and word n-gram, then ranked by what
its `decoding.rescoring` weighs (phones, word pieces, decoder, neural language model); *no LM* is what it does without
its language models: word pieces, among which the lexicon's words go before others. Where the machine did other work
beside, the wall time is longer than the training needs, the CPU time is not.
"""


def table(folder: Path) -> str:
    """RESULTS.md as text; records in alphabetic order of their files."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    versions = sorted({record["normalizer"] for record in records})
    lines = [_HEAD.format(version=", ".join(versions))]
    lines += [f"| recipe | test set | {' | '.join(SYSTEMS)} |", "|---|---|" + "---|" * len(SYSTEMS)]
    for record in records:
        for corpus, measured in record["measurements"].items():
            words = counts(measured["words"])
            cells = [_cell(words, measured["systems"].get(system)) for system in SYSTEMS]
            name = f"{corpus} ({len(words)} utterances, {words.sum()} words)"
            lines.append(f"| {record['name']} | {name} | {' | '.join(cells)} |")
    for record in records:
        lines += ["", *_section(record)]
    return "\n".join(lines) + "\n"


def counts(text: str) -> np.ndarray:
    """The record's notation of a list of counts."""
    return np.array([int(number) for number in text.split()], dtype=np.int64)


def _cell(words: np.ndarray, system: dict[str, Any] | None) -> str:
    if system is None:
        return "–"
    errors = np.array([counts(row) for row in system["errors"]])
    rates = errors.sum(axis=1) / words.sum()
    # What another test set of this kind would give these very models, on average: utterances are drawn, seeds are not.
    interval = wer_interval(errors.sum(axis=0), words * len(errors), [""] * len(words))
    cell = f"{rates.mean():.2%} [{100 * interval.low:.2f}, {100 * interval.high:.2f}]".replace("%", " %")
    if len(rates) > 1:
        cell += f"; seeds {' '.join(f'{100 * rate:.2f}' for rate in rates)}, ±{100 * half_interval(rates):.2f}"
    if words.max() == 1:
        right = (errors == 0).mean(axis=1)
        low, high = wilson_interval(float(right.mean()), len(words))
        cell = f"accuracy {right.mean():.2%} [{100 * low:.2f}, {100 * high:.2f}]".replace("%", " %")
        if len(right) > 1:
            cell += f"; seeds {' '.join(f'{100 * share:.2f}' for share in right)}"
    return cell


def half_interval(values: Sequence[float] | np.ndarray) -> float:
    """Half the 95 % interval of the mean of two values or more, by Student's t."""
    return _t95(len(values) - 1) * float(np.std(values, ddof=1)) / math.sqrt(len(values))


def _t95(freedom: int) -> float:
    """Two-sided 95 % quantile of Student's t: from the table, or 26.7.5 of Abramowitz and Stegun (1964), which is right
    to 0.0002 after it.
    """
    if freedom in _T95:
        return _T95[freedom]
    z = 1.959964
    terms = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + sum(term / math.pow(freedom, power) for power, term in enumerate(terms, 1))


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """95 % interval of a share of `count` (Wilson 1927): right near 0 and 1 too."""
    z = 1.96
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return centre - half, min(1.0, centre + half)


def _section(record: dict[str, Any]) -> list[str]:
    lines = [f"## {record['name']}", "", f"    {record['command']}", ""]
    facts = [
        f"{record['data_h']:.2f} h of training audio ({record['utterances']} utterances)",
        f"{record['parameters'] / 1e6:.2f} M parameters",
        f"measured on {record['date']} at commit {record['commit']} on {record['machine']}",
    ]
    lines += ["; ".join(facts) + ".", ""]
    lines += [
        f"- Seed {run['seed']}: {run['steps']} steps in {run['wall_s'] / 60:.1f} min"
        f" ({run['cpu_s'] / 60:.1f} min of CPU), {run['date']}, at commit {run['commit']} on {run['machine']}."
        for run in record["runs"]
    ] or ["- A bundle as it is; its recipe says how it was made."]
    for corpus, measured in record["measurements"].items():
        system = next(name for name in SYSTEMS if name in measured["systems"])
        pairs = measured["systems"][system]["confusions"]
        shown = ", ".join(f"{said or '∅'} → {heard or '∅'} {count}" for said, heard, count in pairs)
        lines += ["", f"Commonest errors, {corpus}, {system}, all seeds together: {shown or 'none'}."]
    return lines
