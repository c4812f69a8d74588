"""`asr compare A.json B.json …`: which of several systems is better, and whether the test set can tell.

Exit code 0 whatever the verdict; 2 where the files cannot be read or compared, with the whole list on stderr.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asr_service.commands.output_files import output_problem

if TYPE_CHECKING:
    from asr_service.evaluation.result import Evaluation
    from asr_service.evaluation.significance import Comparison, PairComparison

SHOWN_CHANGES = 10


def register(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "compare",
        help="paired tests between systems scored on the same utterances",
        description="Says which of several systems is better, and whether the test set can tell. The exit code is 0 "
        "whatever the verdict, and 2 where the evaluations cannot be read or compared: all that is wrong is listed on "
        "stderr.",
    )
    parser.add_argument("evaluations", nargs="+", type=Path, metavar="JSON", help="from `asr eval --json`; two or more")
    parser.add_argument("--html", type=Path, metavar="OUT", help="write a report of exactly two, side by side")
    parser.add_argument("--audio", action="store_true", help="put recordings into the report")
    parser.add_argument(
        "--changes", type=int, default=SHOWN_CHANGES, metavar="N", help="utterances listed for each side (default: 10)"
    )
    parser.add_argument("--samples", type=int, default=2000, help="bootstrap draws (default: 2000)")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: 0)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from asr_service.errors import ConfigError
    from asr_service.evaluation.problems import ManifestProblems

    problems = _usage(arguments)
    if not problems:
        try:
            _compare(arguments)
        except ManifestProblems as error:
            problems = list(error.problems)
        except ConfigError as error:
            problems = [error.message]
    for problem in problems:
        print(f"asr compare: {problem}", file=sys.stderr)
    return 2 if problems else 0


def _usage(arguments: argparse.Namespace) -> list[str]:
    count = len(arguments.evaluations)
    problems = []
    if count < 2:
        problems.append("needs two evaluations or more, as written by `asr eval --json`")
    if arguments.html is not None and count > 2:
        problems.append(f"--html shows two systems side by side, not {count}")
    if arguments.audio and arguments.html is None:
        problems.append("--audio needs --html")
    if arguments.samples < 100:
        problems.append(f"--samples must be at least 100, not {arguments.samples}")
    if arguments.changes < 0:
        problems.append(f"--changes must be at least 0, not {arguments.changes}")
    if arguments.seed < 0:
        problems.append(f"--seed must be at least 0, not {arguments.seed}")
    overwritten = output_problem({"--html": arguments.html}, arguments.evaluations)
    return [*problems, overwritten] if overwritten else problems


def _compare(arguments: argparse.Namespace) -> None:
    from asr_service.evaluation.problems import refuse_if_any
    from asr_service.evaluation.significance import compare

    evaluations, problems = _load(arguments.evaluations)
    refuse_if_any(problems)
    comparison = compare(*evaluations, samples=arguments.samples, seed=arguments.seed)
    _print_systems(comparison)
    for pair in comparison.pairs:
        _print_pair(pair, arguments.changes)
    print(f"\n{comparison.correction}")
    if arguments.html is not None:
        from asr_service.evaluation.report import write_report

        write_report(arguments.html, evaluations[0], comparison, audio=arguments.audio)
        print(f"report: {arguments.html}", file=sys.stderr)


def _load(paths: list[Path]) -> tuple[list[Evaluation], list[str]]:
    """What can be read, and what is wrong with all the files that cannot."""
    from asr_service.errors import ConfigError
    from asr_service.evaluation.problems import ManifestProblems
    from asr_service.evaluation.store import load

    evaluations: list[Evaluation] = []
    problems: list[str] = []
    for path in paths:
        try:
            evaluations.append(load(path))
        except ManifestProblems as error:
            problems += error.problems
        except ConfigError as error:
            problems.append(error.message)
    return evaluations, problems


def _print_systems(comparison: Comparison) -> None:
    from asr_service.evaluation.result import NO_INTERVAL

    first = comparison.evaluations[0]
    width = max(len(name) for name in comparison.names)
    for name, one in zip(comparison.names, comparison.evaluations, strict=True):
        words, interval = one.words, one.wer_interval
        between = f" [{100 * interval.low:.2f}, {100 * interval.high:.2f}]" if interval.exists else ""
        print(
            f"{name:{width}}  WER {100 * one.wer:6.2f} %{between}  "
            f"CER {100 * one.cer:6.2f} %  SER {100 * one.ser:5.1f} %  "
            f"S {words.substitutions} D {words.deletions} I {words.insertions}"
        )
    interval, count = first.wer_interval, len(first.utterances)
    print(
        f"{first.words.reference_words} reference words in {count} utterance{'s' * (count > 1)}, normaliser "
        f"{first.normalizer}, costs {first.costs}; "
        + (f"{100 * interval.level:g} % bootstrap intervals over {interval.over}" if interval.exists else NO_INTERVAL)
    )


def _print_pair(pair: PairComparison, shown: int) -> None:
    from asr_service.evaluation.result import NO_INTERVAL

    interval, segments = pair.bootstrap.interval, pair.mapsswe
    between, drawn = f"({NO_INTERVAL})", "nothing to draw"
    if interval.exists:
        between = f"[{100 * interval.low:+.2f}, {100 * interval.high:+.2f}] over {interval.over}"
        drawn = f"{interval.samples} draws, seed {interval.seed}"
    first, second = pair.systems
    print(f"\n{first} less {second}")
    print(f"  difference        {100 * pair.bootstrap.difference:+.2f} points {between}")
    print(f"  paired bootstrap  p = {pair.bootstrap.p:.4g} ({drawn})")
    print(f"  MAPSSWE           p = {segments.p:.4g} (z = {segments.z:.3f}, {segments.segments} segments)")
    print(f"  decisive          p = {pair.adjusted_p:.4g} (the larger of both, corrected)")
    print(f"  utterances        {pair.wins} with fewer errors in {first}, {pair.losses} in {second}, {pair.ties} alike")
    for name, sign in ((first, 1), (second, -1)):
        changes = [change for change in pair.changes if change.change * sign > 0]
        for change in changes[:shown]:
            errors = f"{change.errors[0]} and {change.errors[1]} errors"
            print(f"    better with {name}: {change.utterance_id} ({errors})")
        if len(changes) > shown > 0:
            print(f"    better with {name}: {len(changes) - shown} more")
    print(f"  {pair.verdict}")
