"""The one door to torchaudio: `from asr_service.torchaudio_guard import torchaudio`.

torchaudio's wheel links CUDA libraries, so beside a CPU build of torch its extension fails to load and takes the whole
import with it. Everything used here is pure Python, so a stand-in for the extension module is put in place first when
the real one cannot be loaded.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import Any


def _without_extension() -> types.ModuleType:
    """A stand-in for `torchaudio._extension` that says: no compiled parts here."""

    def passthrough(function: Any) -> Any:
        return function

    def nothing_to_check() -> None:
        return None

    module = types.ModuleType("torchaudio._extension")
    module.__dict__.update(
        _IS_TORCHAUDIO_EXT_AVAILABLE=False,
        _IS_ALIGN_AVAILABLE=False,
        fail_if_no_align=passthrough,
        _check_cuda_version=nothing_to_check,
    )
    return module


def _import_torchaudio() -> types.ModuleType:
    try:
        return importlib.import_module("torchaudio")
    except OSError:
        for name in [name for name in sys.modules if name == "torchaudio" or name.startswith("torchaudio.")]:
            del sys.modules[name]
        sys.modules["torchaudio._extension"] = _without_extension()
        return importlib.import_module("torchaudio")


torchaudio: Any = _import_torchaudio()
for _name in ("functional", "transforms"):
    importlib.import_module(f"torchaudio.{_name}")
