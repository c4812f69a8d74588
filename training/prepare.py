"""Make a training manifest from a corpus, after every utterance was checked; nothing is dropped in silence.

    python -m training.prepare --from librispeech LibriSpeech/train-clean-100 --out data/train.jsonl
    python -m training.prepare --from kaldi data/train --out data/train.jsonl --drop empty_text,too_fast
    python -m training.prepare --from common_voice cv-corpus/en/validated.tsv --out data/cv.jsonl --drop all
    python -m training.prepare --from lhotse cuts.jsonl.gz --out data/cuts.jsonl
    python -m training.prepare --from manifest old.jsonl --out new.jsonl --keep duplicate_text

Every recording is read to its end. The report (OUT with .report.json, and a table on stdout) names each faulty
utterance with its reasons. Where there is one, the command ends with code 2 and writes no manifest, unless each has a
reason that `--drop` names, or only such as `--keep` names. A corpus that is not as its format says is not checked: all
that is wrong goes to stderr, the code is 2. The manifest has the durations that were measured.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from asr_service.commands.option_types import positive
from asr_service.parent_process import end_with_parent
from asr_service.tokenizer import WordPieces
from training.atomic import atomic_text
from training.command_errors import told_in_one_line
from training.command_line import command_parser
from training.importers.common_voice import read_common_voice
from training.importers.kaldi import read_kaldi
from training.importers.lhotse import read_lhotse
from training.importers.librispeech import read_librispeech
from training.importers.native import read_native
from training.importers.record import MANIFEST_FIELDS, Record
from training.inspection import REASONS, Inspection, Inspector, Limits
from training.tokenizer import NORMALIZERS

# Somebody who says "seven" fifty times takes equally long for it now and then.
MIN_DUPLICATE_WORDS = 3

SOURCES: dict[str, Callable[[argparse.Namespace], Iterator[Record]]] = {
    "librispeech": lambda given: read_librispeech(given.path, corpus=given.corpus),
    "kaldi": lambda given: read_kaldi(given.path, corpus=given.corpus, audio_root=given.audio_root),
    "common_voice": lambda given: read_common_voice(given.path, corpus=given.corpus),
    "lhotse": lambda given: read_lhotse(given.path, corpus=given.corpus, audio_root=given.audio_root),
    "manifest": lambda given: read_native(given.path, corpus=given.corpus),
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """An utterance with all its faults, and what becomes of it: "kept", "dropped" or "undecided"."""

    inspection: Inspection
    faults: tuple[tuple[str, str], ...]
    outcome: str


def inspect_all(records: Iterable[Record], inspector: Inspector, *, workers: int) -> list[Inspection]:
    """Inspections in the order of the records, by `workers` processes, with a progress bar."""
    listed = list(records)
    with ProcessPoolExecutor(workers, initializer=end_with_parent) as pool:
        return list(tqdm(pool.map(inspector, listed, chunksize=16), total=len(listed), desc="checking", unit="utt"))


def judge(inspections: Iterable[Inspection], *, drop: Collection[str], keep: Collection[str]) -> list[Verdict]:
    """Add the duplicates of an earlier utterance, and decide.

    A fault whose reason is in `keep` counts for nothing but the report. Of the others one in `drop` drops the
    utterance; without such a one it is undecided. What an utterance that is dropped had is no duplicate's original.
    """
    seen: dict[tuple[str, object], str] = {}
    verdicts = []
    for inspection in inspections:
        keys = _identity(inspection)
        doubled = [(reason, f"as {seen[reason, key]}") for reason, key in keys if (reason, key) in seen]
        faults = (*inspection.faults, *doubled)
        # What cannot be read cannot be kept.
        serious = {reason for reason, _ in faults} - ({*keep} if inspection.audio is not None else set())
        outcome = "kept" if not serious else "dropped" if serious & {*drop} else "undecided"
        if outcome != "dropped":
            for reason_and_key in keys:
                seen.setdefault(reason_and_key, inspection.record.utterance_id)
        verdicts.append(Verdict(inspection, faults, outcome))
    return verdicts


def _identity(inspection: Inspection) -> list[tuple[str, object]]:
    """What no two utterances should share, by the reason that it gives."""
    keys: list[tuple[str, object]] = [("duplicate_id", (inspection.record.corpus, inspection.record.utterance_id))]
    audio = inspection.audio
    if audio is not None and audio.n_samples and ("all_zero", f"{audio.duration_s:.2f} s") not in inspection.faults:
        keys.append(("duplicate_audio", (audio.digest, audio.n_samples)))
        if inspection.normalized.count(" ") + 1 >= MIN_DUPLICATE_WORDS and inspection.record.speaker:
            keys.append(("duplicate_text", (inspection.normalized, inspection.record.speaker, audio.n_samples)))
    return keys


def manifest_row(inspection: Inspection, folder: Path) -> dict[str, object]:
    """The utterance in the fields of our manifests, its audio relative to the manifest's `folder`."""
    record, audio = inspection.record, inspection.audio
    if audio is None:
        raise ValueError(f"{record.audio}: unreadable audio has no place in a manifest")
    assert not MANIFEST_FIELDS & record.extra.keys()
    row: dict[str, object] = {
        **({"id": record.utterance_id} if record.named else {}),
        "audio_filepath": Path(os.path.relpath(record.audio.resolve(), folder.resolve())).as_posix(),
        "duration": round(audio.duration_s, 4),
        "text": record.text,
        "speaker": record.speaker,
        "corpus": record.corpus,
        **record.extra,
    }
    if record.segment:
        row["offset"] = round(record.offset_s, 4)
    return row


def report_of(verdicts: Iterable[Verdict], arguments: argparse.Namespace) -> dict[str, object]:
    """What was found and decided, for the report's JSON."""
    outcomes: dict[str, Counter[str]] = {name: Counter() for name in ("kept", "dropped", "undecided")}
    reasons: dict[str, Counter[str]] = {}
    faulty = []
    for verdict in verdicts:
        record, audio = verdict.inspection.record, verdict.inspection.audio
        duration_s = audio.duration_s if audio is not None else record.duration_s or 0.0
        outcomes[verdict.outcome].update(utterances=1, ms=round(duration_s * 1000))
        for reason in dict.fromkeys(reason for reason, _ in verdict.faults):
            reasons.setdefault(reason, Counter()).update(
                {"utterances": 1, "ms": round(duration_s * 1000), verdict.outcome: 1}
            )
        if verdict.faults:
            faulty.append(
                {
                    "id": record.utterance_id,
                    "audio_filepath": str(record.audio),
                    "corpus": record.corpus,
                    "text": record.text,
                    "outcome": verdict.outcome,
                    "faults": [{"reason": reason, "detail": detail} for reason, detail in verdict.faults],
                }
            )
    return {
        "source": {"from": arguments.source, "path": str(arguments.path)},
        "normalizer": {"name": arguments.normalizer, "version": NORMALIZERS[arguments.normalizer].version},
        "drop": sorted(arguments.drop),
        "keep": sorted(arguments.keep),
        "outcomes": {name: _with_hours(counter) for name, counter in outcomes.items()},
        "reasons": {name: _with_hours(reasons[name]) for name in REASONS if name in reasons},
        "utterances": faulty,
    }


def _with_hours(counter: Counter[str]) -> dict[str, float]:
    hours = counter["ms"] / 3_600_000
    return {"utterances": 0, **{key: value for key, value in counter.items() if key != "ms"}, "hours": round(hours, 4)}


def _print_table(report: dict[str, object]) -> None:
    row = "{:20s} {:>10} {:>8} {:>8} {:>8} {:>10}"
    reasons, outcomes = report["reasons"], report["outcomes"]
    assert isinstance(reasons, dict)
    assert isinstance(outcomes, dict)
    if reasons:
        print(row.format("reason", "utterances", "hours", "kept", "dropped", "undecided"))
    for name, counts in reasons.items():
        decided = (counts.get(outcome, 0) for outcome in ("kept", "dropped", "undecided"))
        print(row.format(name, counts["utterances"], f"{counts['hours']:.2f}", *decided))
    for name, counts in outcomes.items():
        print(f"{name}: {_utterances(counts['utterances'])}, {counts['hours']:.2f} h")


def _utterances(count: int) -> str:
    return f"{count} utterance{'' if count == 1 else 's'}"


def _reasons(argument: str) -> frozenset[str]:
    if argument == "all":
        return frozenset(REASONS)
    names = frozenset(argument.split(","))
    if "duplicate" in names:
        names = names - {"duplicate"} | {name for name in REASONS if name.startswith("duplicate_")}
    if unknown := names - REASONS.keys():
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: the reasons are {', '.join(REASONS)}")
    return names


def _parser() -> argparse.ArgumentParser:
    listing = "\n".join(f"    {name:20s} {meaning}" for name, meaning in REASONS.items())
    parser = command_parser("prepare", f"{__doc__}\nreasons:\n{listing}\n    duplicate            the three of them")
    parser.add_argument("path", type=Path, help="folder, table, CutSet or manifest")
    parser.add_argument("--from", dest="source", choices=SOURCES, required=True, help="what PATH is")
    parser.add_argument("--out", type=Path, required=True, help="manifest to write")
    parser.add_argument("--drop", type=_reasons, default=frozenset(), help="reasons, joined by commas, or all")
    parser.add_argument("--keep", type=_reasons, default=frozenset(), help="reasons that are no fault here")
    parser.add_argument("--corpus", default="", help="name of the corpus in the manifest")
    parser.add_argument("--audio-root", type=Path, default=Path(), help="of relative paths: kaldi, lhotse")
    parser.add_argument(
        "--normalizer", choices=NORMALIZERS, default="transcript", help="rules for the texts; default: transcript"
    )
    parser.add_argument("--tokenizer", type=Path, help="its vocabulary must spell every text")
    for name, limit, fault in (
        ("min", Limits().min_chars_per_s, "too_slow: fewer"),
        ("max", Limits().max_chars_per_s, "too_fast: more"),
    ):
        parser.add_argument(
            f"--{name}-chars-per-second", type=float, default=limit, help=f"{fault} is a fault; default: {limit:g}"
        )
    parser.add_argument("--workers", type=positive, default=os.cpu_count() or 1, help="processes")
    return parser


def main() -> None:
    parser = _parser()
    arguments = parser.parse_args()
    if both := sorted(arguments.drop & arguments.keep) if arguments.keep else []:
        parser.error(f"both --drop and --keep name {', '.join(both)}")
    least, most = arguments.min_chars_per_second, arguments.max_chars_per_second
    if not 0.0 <= least <= most:  # nor NaN
        parser.error(
            f"--min-chars-per-second is {least:g}, --max-chars-per-second {most:g}: must be 0 or more, in order"
        )
    with told_in_one_line("prepare"):
        _prepare(arguments)


def _prepare(arguments: argparse.Namespace) -> None:
    if arguments.tokenizer:
        WordPieces.load(arguments.tokenizer)  # what is wrong with it is told before the corpus is read
    limits = Limits(
        min_chars_per_s=arguments.min_chars_per_second,
        max_chars_per_s=arguments.max_chars_per_second,
    )
    inspector = Inspector(limits, arguments.normalizer, arguments.tokenizer)
    inspections = inspect_all(SOURCES[arguments.source](arguments), inspector, workers=arguments.workers)
    verdicts = judge(inspections, drop=arguments.drop, keep=arguments.keep)
    report = report_of(verdicts, arguments)
    report_path = arguments.out.with_suffix(".report.json")
    with atomic_text(report_path) as file:
        json.dump(report, file, indent=1, ensure_ascii=False)
    _print_table(report)
    if any(verdict.outcome == "undecided" for verdict in verdicts):
        raise ValueError(
            f"{arguments.out} is not written: let --drop or --keep name the reasons above; {report_path} names each"
        )
    kept = [verdict.inspection for verdict in verdicts if verdict.outcome == "kept"]
    if not kept:
        raise ValueError(f"{arguments.out} is not written: none of {_utterances(len(verdicts))} is kept")
    with atomic_text(arguments.out) as file:
        for inspection in kept:
            file.write(json.dumps(manifest_row(inspection, arguments.out.parent), ensure_ascii=False) + "\n")
    print(f"{arguments.out}: {_utterances(len(kept))}; {report_path} is the report")


if __name__ == "__main__":
    main()
