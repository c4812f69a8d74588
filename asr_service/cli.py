"""The command `asr`.

Exit codes: 0 done, 1 something could not be done (said on stderr), 2 wrong usage, 70 the engine of
`asr serve` has failed, 130 interrupted. Results go to
stdout, everything else to stderr. Each command imports what it needs when it runs, so that `asr --help` is quick.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from asr_service.commands.stdout import StdoutLost, checked_stdout
from asr_service.commands.wording import said
from asr_service.errors import AsrError

COMMANDS = ("serve", "transcribe", "stream", "demo", "evaluate", "compare", "bench", "models")


class _Version(argparse.Action):
    """Looks the version up when it is asked for: every other command would wait for it."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"{parser.prog} {version('asr-service')}")  # noqa: T201
        parser.exit()


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="asr", description="Speech recognition that you run yourself.")
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and end")
    subparsers = parser.add_subparsers(title="commands", dest="command", required=True)
    for name in COMMANDS:
        importlib.import_module(f"asr_service.commands.{name}").register(subparsers)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code. Usage errors exit with 2."""
    # Before torch is imported: OpenMP threads that spin while they wait starve whatever runs beside them.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    command = "asr"
    try:
        with checked_stdout():
            parsed = build_parser().parse_args(arguments)
            command = f"asr {parsed.command}"
            return int(parsed.run(parsed))
    except AsrError as error:
        print(f"{command}: {said(error)}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        return 130
    except StdoutLost as error:
        if error.problem:
            print(f"{command}: cannot write to stdout: {error.problem}", file=sys.stderr)  # noqa: T201
        return 1
    except BrokenPipeError:  # of stderr: `asr stream ... 2>&1 | head`
        return 1


if __name__ == "__main__":
    sys.exit(main())
