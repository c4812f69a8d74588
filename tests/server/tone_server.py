"""`python -m tests.server.tone_server SETTINGS`: a server process with the tone engine, to send signals to."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from asr_service.config import load_settings
from asr_service.server.app import serve
from asr_service.server.logs import configure_logging
from tests.fake_engine import FakeEngine


def load() -> FakeEngine:
    time.sleep(0.5)  # long enough to be seen loading
    return FakeEngine()


if __name__ == "__main__":
    settings = load_settings(Path(sys.argv[1]))
    configure_logging(settings.server.log_level)
    sys.exit(asyncio.run(serve(settings, load)))
