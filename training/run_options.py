"""Options of every command that trains: where its run is kept, what it runs on, how often it is saved."""

from __future__ import annotations

import argparse
import math
import re
from pathlib import Path

import torch

from asr_service.commands.option_types import positive


def minutes(text: str) -> float:
    """A time that ends. Raises ArgumentTypeError, or ValueError for what is no number."""
    number = float(text)
    if not 0 <= number < math.inf:  # NaN is neither
        raise argparse.ArgumentTypeError(f"must be a finite number, 0 or more, not {text}")
    return number


def device(text: str) -> str:
    """A device that is there. Raises ArgumentTypeError."""
    found = re.fullmatch(r"cpu|cuda(?::(\d+))?", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"must be cpu, cuda or cuda:NUMBER, not {text}")
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if text != "cpu" and int(found[1] or 0) >= there:
        raise argparse.ArgumentTypeError(f"{text} is not there: torch finds {there} CUDA devices")
    return text


def add_device_option(parser: argparse.ArgumentParser) -> None:
    """`--device`."""
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", type=device, default=default, help=f"to train on; default here: {default}")


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """`--runs`, `--threads`, `--device` and `--save-minutes`."""
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of checkpoints and decoded audio")
    parser.add_argument("--threads", type=positive, default=1, help="of torch; default: 1")
    add_device_option(parser)
    parser.add_argument("--save-minutes", type=minutes, default=4.0, help="between checkpoints; default: 4")


def add_time_option(parser: argparse.ArgumentParser) -> None:
    """`--max-minutes`."""
    parser.add_argument(
        "--max-minutes", type=minutes, help="save and stop so long after the start; the same command goes on"
    )


def add_pace_options(parser: argparse.ArgumentParser) -> None:
    """`--max-minutes` and `--compile`."""
    add_time_option(parser)
    parser.add_argument("--compile", action="store_true", help="the encoder's blocks by torch.compile, for GPUs")
