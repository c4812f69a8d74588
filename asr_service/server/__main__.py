"""`python -m asr_service.server` is `asr serve`."""

from __future__ import annotations

import sys

from asr_service.cli import main

if __name__ == "__main__":
    sys.exit(main(["serve", *sys.argv[1:]]))
