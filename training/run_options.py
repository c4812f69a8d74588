"""Options of every command that trains: where its run is kept, what it runs on, how often it is saved."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """`--runs`, `--threads`, `--device` and `--save-minutes`."""
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of checkpoints and decoded audio")
    parser.add_argument("--threads", type=int, default=1, help="of torch; default: 1")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=device, help=f"to train on; default here: {device}")
    parser.add_argument("--save-minutes", type=float, default=4.0, help="between checkpoints; default: 4")
