"""What each point of the dial buys: low, balanced and accurate latency, as one table.

Nothing is measured here: `asr eval` says how right the words are, `asr bench live` how late they come from one stream,
and with a ramp how many streams hold. Their JSON files are kept in --folder, and those that are there already are not
made again, so a run that was interrupted goes on.

    python -m benchmarks.dial dev.jsonl --corpus librispeech_dev_clean_part --every 2 --folder dial --workers 2
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from asr_service.config import LATENCIES

ASR = (sys.executable, "-m", "asr_service.cli")
COLUMNS = (
    "latency",
    "WER",
    "over accurate mode",
    "partial after its first word p50 / p95",
    "word p50 / p95",
    "final after the endpoint p50 / p95",
    "final after 800 ms of silence p50 / p95",
    "revoked / emitted",
    "CPU a second, 1 stream",
    "streams held",
    "CPU a second, then",
)


def result(path: Path, *command: str) -> dict[str, Any]:
    """What the command wrote to `path`, now or earlier. Raises CalledProcessError."""
    if not path.exists():
        unfinished = path.with_suffix(".unfinished")
        print(f"{' '.join(command)} -> {path}", flush=True)
        subprocess.run([*ASR, *command, "--json", str(unfinished)], check=True)
        unfinished.rename(path)
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def row(
    latency: str, scored: dict[str, Any], accurate: dict[str, Any], one: dict[str, Any], many: dict[str, Any]
) -> str:
    (alone,) = one["runs"]
    held = many["ramp"]["largest"]
    then = [run for run in many["runs"] if run["streams"] == held]
    low, high = scored["wer_ci95"]
    cells = (
        latency,
        f"{100 * scored['wer']:.2f} % [{100 * low:.2f}, {100 * high:.2f}]",
        f"{100 * (scored['wer'] - accurate['wer']):+.2f}",
        spread(alone["first_partial"]),
        spread(alone["word"]),
        spread(alone["final_after_endpoint"]),
        spread(alone["final_after_silence"]),
        "–" if alone["revoked_share"] is None else f"{100 * alone['revoked_share']:.1f} %",
        cost(alone),
        str(held),
        cost(then[0]) if then else "–",
    )
    return "| " + " | ".join(cells) + " |"


def spread(values: dict[str, float] | None) -> str:
    return "–" if values is None else f"{1000 * values['p50']:.0f} / {1000 * values['p95']:.0f} ms"


def cost(run: dict[str, Any]) -> str:
    return "–" if run["cost"] is None else f"{1000 * run['cost']['cpu_per_audio_s']:.1f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--model", type=Path, help="default: the shipped model")
    parser.add_argument("--corpus", action="append", default=[], help="only this one; may be given again")
    parser.add_argument("--every", type=int, default=1, help="of asr eval: only every Nth utterance")
    parser.add_argument("--folder", type=Path, default=Path("dial"), help="where the JSON files are")
    parser.add_argument("--seconds", type=float, default=120.0, help="of each load; default: 120")
    parser.add_argument("--first", type=int, default=16, help="streams that the ramp begins with; default: 16")
    parser.add_argument("--limit", type=int, default=256, help="most streams of the ramp; default: 256")
    parser.add_argument("--workers", type=int, default=1, help="processes of the server under the ramp")
    arguments = parser.parse_args()

    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    which = [str(arguments.manifest), *(part for name in arguments.corpus for part in ("--corpus", name))]
    which += ["--model", str(arguments.model)] if arguments.model else []
    every = ["--every", str(arguments.every)]
    accurate = result(folder / "mode-accurate.json", "eval", *which, *every, "--mode", "accurate")
    rows = []
    for latency in LATENCIES:
        config = folder / f"{latency}.toml"
        config.write_text(f'[engine]\nlatency = "{latency}"\n')
        live = ["bench", "live", *which, "--config", str(config), "--seconds", str(arguments.seconds)]
        ramp = ["--ramp", "--streams", str(arguments.first), "--limit", str(arguments.limit)]
        # A connection each: with several workers the kernel shares out connections, not streams.
        ramp += ["--workers", str(arguments.workers), "--channels", "N"]
        rows.append(
            row(
                latency,
                result(
                    folder / f"eval-{latency}.json", "eval", *which, *every, "--mode", "streaming", "--latency", latency
                ),
                accurate,
                result(folder / f"one-{latency}.json", *live, "--streams", "1", "--no-alone"),
                result(folder / f"ramp-{latency}.json", *live, *ramp),
            )
        )
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
