"""What the commands of training share on the command line."""

from __future__ import annotations

import argparse


def command_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """The parser of `python -m training.NAME`; its help has the description line by line as it is written."""
    return argparse.ArgumentParser(
        prog=f"python -m training.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
