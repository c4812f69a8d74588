"""`asr eval MANIFEST...`: word error rate of a recogniser, with its interval, speed and latency."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asr_service.commands.connection import add_server_options, check_server_options, connection
from asr_service.commands.option_types import NORMALIZERS, positive, unicode_text
from asr_service.commands.output_files import check_output_files
from asr_service.commands.wording import readable
from asr_service.config import LATENCIES

if TYPE_CHECKING:
    from asr_service.evaluation.output import Output
    from asr_service.evaluation.reference import Reference
    from asr_service.evaluation.run import Spread, System

# Of asr_service.evaluation.references and of asr_service.evaluation.hypotheses.
FORMATS = ("jsonl", "csv", "tsv", "kaldi", "librispeech", "stm", "ctm", "trn", "srt", "vtt", "lhotse")
HYP_FORMATS = ("jsonl", "csv", "tsv", "ctm", "trn", "kaldi", "srt", "vtt", "evaluation")
# Options that are of a system recognising, and have no effect on the output of another.
OF_A_RUN = (
    "mode",
    "server",
    "tls",
    "ca",
    "metadata",
    "model",
    "config",
    "chunk_frames",
    "latency",
    "journal",
    "jobs",
    "ray",
    "no_lm",
    "real_time",
)


def register(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "eval",
        help="word error rate on a test set",
        description="Recognises a test set, in process or by a server, or takes the output of any other system, and "
        "scores it. Scores go to stdout. What cannot be scored as it is, missing audio, ids that do not match or stand "
        "there twice, utterances that could not be recognised, is listed on stderr, and the exit code is 2.",
        epilog="A run with --json that was killed goes on where it was when the same command is given again.",
    )
    parser.add_argument(
        "manifests",
        nargs="+",
        type=Path,
        metavar="MANIFEST",
        help="JSON lines, CSV or TSV, Kaldi or LibriSpeech folder, STM, CTM, TRN, SRT, VTT, lhotse cuts",
    )
    parser.add_argument(
        "--format", default="", help=f"of the manifests: {', '.join(FORMATS)} (default: by name and content)"
    )
    parser.add_argument("--corpus", action="append", default=[], help="only this corpus; may be given again")
    parser.add_argument("--every", type=positive, default=1, metavar="N", help="only every Nth utterance")
    system = parser.add_argument_group("what recognises")
    system.add_argument("--mode", choices=("accurate", "streaming"), help="default: accurate")
    system.add_argument("--model", type=Path, metavar="DIR", help="bundle directory (default: the shipped model)")
    system.add_argument("--no-lm", action="store_true", help="without the bundle's language model")
    system.add_argument(
        "--chunk-frames", type=positive, metavar="N", help="40 ms frames of a chunk; needs --mode streaming"
    )
    system.add_argument("--latency", choices=LATENCIES, help="needs --mode streaming (default: of the settings)")
    system.add_argument("--config", type=Path, metavar="FILE", help="settings (TOML)")
    add_server_options(system, "let a running server do it (default: in process)")
    system.add_argument("--real-time", action="store_true", help="with --server: at a microphone's pace, for latency")
    system.add_argument("--hyp", type=Path, metavar="FILE", help="score this output of another system instead")
    system.add_argument(
        "--hyp-format",
        default="",
        metavar="FORMAT",
        help=f"of it: {', '.join(HYP_FORMATS)} (default: by name and content)",
    )
    work = parser.add_argument_group("how the work is done")
    work.add_argument("--jobs", type=positive, metavar="N", help="processes, one thread each (default: 1)")
    work.add_argument("--ray", action="store_true", help="over the machines of RAY_ADDRESS's cluster; --jobs: tasks")
    work.add_argument(
        "--journal", type=Path, metavar="FILE", help="what is done, while it goes (default: FILE.journal of --json)"
    )
    scores = parser.add_argument_group("scores")
    scores.add_argument("--normalizer", choices=NORMALIZERS, default="basic", help="default: basic")
    scores.add_argument("--costs", choices=("equal", "sclite"), default="equal", help="of the alignment")
    scores.add_argument(
        "--name", type=unicode_text, default="", help="what to call the system (default: model and mode)"
    )
    scores.add_argument("--json", type=Path, metavar="FILE", help="write scores and every utterance there")
    scores.add_argument("--html", type=Path, metavar="FILE", help="write a report there")
    scores.add_argument("--audio", action="store_true", help="put recordings into the report")
    parser.set_defaults(run=run, usage_error=parser.error)


def run(arguments: argparse.Namespace) -> int:
    from asr_service.evaluation.problems import ManifestProblems

    _check_usage(arguments)
    try:
        _evaluate(arguments)
    except ManifestProblems as error:
        for problem in error.problems:
            print(f"asr eval: {problem}", file=sys.stderr)
        return 2
    return 0


def _evaluate(arguments: argparse.Namespace) -> None:
    from asr_service.commands.score_lines import dropped_lines, score_lines
    from asr_service.config import load_settings
    from asr_service.evaluation.normalizer import normalizer
    from asr_service.evaluation.problems import refuse_if_any
    from asr_service.evaluation.provenance import provenance
    from asr_service.evaluation.references import audio_problems, read_references
    from asr_service.evaluation.scoring import score
    from asr_service.evaluation.snr import with_snr
    from asr_service.evaluation.store import save

    rule = normalizer(arguments.normalizer)  # a package that is missing is told before hours of work, not after
    references = read_references(arguments.manifests, corpora=arguments.corpus, format=arguments.format)
    references = references[:: arguments.every]
    about = provenance(sys.argv[1:])
    journal = vocabulary = None
    if arguments.hyp:
        name = readable(arguments.hyp.name)
        outputs = _of_another_system(arguments, references)
        about = _origin(arguments) | about
    else:
        refuse_if_any(list(audio_problems(references)))
        system = _system(arguments)
        identity = dict(system.identity())
        _tell_no_n_gram(arguments, identity)
        name, vocabulary, journal = _name(arguments, identity["model"]), system.vocabulary(), _journal_path(arguments)
        outputs = _recognised(references, system, _spread(arguments), journal, _run_identity(identity, about))
        about |= identity
    if arguments.json or arguments.html:  # the printed lines have no breakdown by it
        references = list(with_snr(references, load_settings(arguments.config)))
    system_name = arguments.name or name
    evaluation = score(references, outputs, normalizer=rule, costs=arguments.costs, system=system_name, about=about)
    # Files first: a reader of the lines below may go away (`| head`).
    if arguments.json:
        save(evaluation, arguments.json)
    if arguments.html:
        from asr_service.evaluation.report import write_report

        write_report(arguments.html, evaluation, audio=arguments.audio, vocabulary=vocabulary)
    if journal is not None:
        journal.unlink()
    for line in dropped_lines(evaluation, rule):
        print(f"asr eval: {line}", file=sys.stderr)
    print(f"{evaluation.system}{_hash(about)}")
    for line in score_lines(evaluation):
        print(line)


def _check_usage(arguments: argparse.Namespace) -> None:
    if arguments.hyp:
        given = [name for name in OF_A_RUN if getattr(arguments, name)]
        if given:
            arguments.usage_error(f"--{given[0].replace('_', '-')} has no effect with --hyp: nothing is recognised")
    elif arguments.hyp_format:
        arguments.usage_error("--hyp-format has no effect without --hyp")
    check_server_options(arguments)
    if arguments.server:
        for name in ("model", "no_lm", "chunk_frames", "latency"):
            if getattr(arguments, name):
                option = name.replace("_", "-")
                arguments.usage_error(f"--{option} has no effect with --server: it is the server that has the model")
    if (arguments.chunk_frames or arguments.latency) and arguments.mode != "streaming":
        arguments.usage_error("--chunk-frames and --latency are for --mode streaming")
    if arguments.audio and not arguments.html:
        arguments.usage_error("--audio has no effect without --html")
    if arguments.real_time and not (arguments.server and arguments.mode == "streaming"):
        arguments.usage_error("--real-time is for --server with --mode streaming; in process the clock is virtual")
    journal = None if arguments.hyp else _journal_path(arguments)
    check_output_files(
        arguments,
        {"--json": arguments.json, "--html": arguments.html, "--journal": journal},
        [*arguments.manifests, arguments.hyp, arguments.config, arguments.ca],
    )


def _of_another_system(arguments: argparse.Namespace, references: Sequence[Reference]) -> list[Output]:
    """Its outputs; of a part of the test set those of that part, and any that the whole test set has no place for."""
    from asr_service.evaluation.hypotheses import read_outputs
    from asr_service.evaluation.references import read_references

    if not arguments.corpus and arguments.every == 1:
        return read_outputs(arguments.hyp, references=references, format=arguments.hyp_format)
    # Of all segments: to a part of them, a CTM's words of the others would be wrong ones.
    whole = read_references(arguments.manifests, format=arguments.format)
    outputs = read_outputs(arguments.hyp, references=whole, format=arguments.hyp_format)
    chosen, every = ({reference.utterance_id for reference in part} for part in (references, whole))
    return [output for output in outputs if output.utterance_id in chosen or output.utterance_id not in every]


def _origin(arguments: argparse.Namespace) -> dict[str, str]:
    """Where hypotheses came from: of our own JSON of an evaluation all that made it, of any other file its digest."""
    from asr_service.evaluation.hypotheses import format_of
    from asr_service.evaluation.store import load

    path: Path = arguments.hyp
    if (arguments.hyp_format or format_of(path)) == "evaluation":
        of_the_run = {"command", "machine", "commit", "date"}
        earlier = load(path).about.items()
        return {f"recognition_{name}" if name in of_the_run else name: value for name, value in earlier}
    if path.is_file():
        return {"hypotheses_hash": f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"}
    return {}


def _system(arguments: argparse.Namespace) -> System:
    from asr_service.config import load_settings
    from asr_service.types import Mode

    mode, settings = Mode(arguments.mode or "accurate"), load_settings(arguments.config)
    if arguments.latency:
        engine = dataclasses.replace(settings.engine, latency=arguments.latency)
        settings = dataclasses.replace(settings, engine=engine)
    if arguments.server:
        from asr_service.evaluation.by_server import ServerSystem

        return ServerSystem(connection(arguments, arguments.server), mode, arguments.real_time, settings)
    from asr_service.evaluation.in_process import BundleSystem

    return BundleSystem(mode, arguments.model, not arguments.no_lm, arguments.chunk_frames, settings)


def _tell_no_n_gram(arguments: argparse.Namespace, identity: dict[str, str]) -> None:
    from asr_service.evaluation.in_process import NO_N_GRAM

    if identity.get("language_model") == NO_N_GRAM:
        no_effect = ": --no-lm has no effect" if arguments.no_lm else ""
        print(f"asr eval: the bundle {identity['model']} has no n-gram (lm.kenlm){no_effect}", file=sys.stderr)


def _spread(arguments: argparse.Namespace) -> Spread:
    if arguments.ray:
        from asr_service.evaluation.ray_cluster import over_cluster

        return over_cluster(arguments.jobs)
    if arguments.jobs and arguments.jobs > 1:
        from asr_service.evaluation.shards import over_processes

        return over_processes(arguments.jobs)
    from asr_service.evaluation.run import one_by_one

    return one_by_one


def _recognised(
    references: Sequence[Reference], system: System, spread: Spread, path: Path | None, identity: dict[str, str]
) -> list[Output]:
    """Raises ManifestProblems with every utterance that could not be recognised; what was done stays in the journal."""
    from asr_service.commands.progress import shown
    from asr_service.evaluation.journal import Journal, references_digest
    from asr_service.evaluation.problems import refuse_if_any
    from asr_service.evaluation.run import in_order, run

    identity = identity | {"test_set": references_digest(references)}
    with Journal(path, identity) if path is not None else contextlib.nullcontext() as journal:
        if journal is not None and journal.outputs:
            print(f"asr eval: {len(journal.outputs)} utterances are in {path} already", file=sys.stderr)
        results = run(references, system, spread=spread, journal=journal)
        outputs, failures = in_order(references, shown(results, len(references), "utterances"))
    refuse_if_any([f"{failure.utterance_id}: {failure.message}" for failure in failures])
    return outputs


def _journal_path(arguments: argparse.Namespace) -> Path | None:
    if arguments.journal or not arguments.json:
        return arguments.journal  # type: ignore[no-any-return]
    return arguments.json.with_name(f"{arguments.json.name}.journal")  # type: ignore[no-any-return]


def _run_identity(identity: dict[str, str], about: dict[str, str]) -> dict[str, str]:
    """Of a system, with the code and the libraries that its words may depend on."""
    return identity | {name: about[name] for name in ("asr_service", "torch", "code") if name in about}


def _name(arguments: argparse.Namespace, model: str) -> str:
    parts = [model, arguments.mode or "accurate"]
    parts += ["without language model"] if arguments.no_lm else []
    parts += [f"{arguments.latency} latency"] if arguments.latency else []
    parts += [f"chunks of {40 * arguments.chunk_frames} ms"] if arguments.chunk_frames else []
    parts += ["through a server"] if arguments.server else []
    return ", ".join(parts)


def _hash(about: dict[str, str]) -> str:
    return f" ({about['model_hash'][:19]}…)" if "model_hash" in about else ""
