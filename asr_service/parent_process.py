"""Processes that end with the one that started them, however that one ends (Linux; elsewhere they do not)."""

from __future__ import annotations

import ctypes
import signal

# Looked up before a fork: behind one the loader's lock may be held by a thread that is not there.
_prctl = getattr(ctypes.CDLL(None), "prctl", None)
_PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """In a process that begins: when the thread that started it is gone, killed without a word, the kernel sends it
    SIGTERM.
    """
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
