"""Which recogniser is better, and how sure one can be of it: scores, intervals, paired tests.

    from asr_service.evaluation import compare, score
    ours = score(["the cat sat"], ["the cat sat"], system="ours")
    theirs = score(["the cat sat"], ["a cat sat"], system="theirs")
    print(compare(ours, theirs))

What is named here is imported when it is first asked for: the normaliser alone costs no numpy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asr_service.evaluation.hypotheses import read_outputs as read_outputs
    from asr_service.evaluation.normalizer import Normalizer as Normalizer
    from asr_service.evaluation.output import Output as Output
    from asr_service.evaluation.output import Timing as Timing
    from asr_service.evaluation.problems import ManifestProblems as ManifestProblems
    from asr_service.evaluation.reference import Reference as Reference
    from asr_service.evaluation.references import read_references as read_references
    from asr_service.evaluation.result import Evaluation as Evaluation
    from asr_service.evaluation.result import Interval as Interval
    from asr_service.evaluation.result import UtteranceScore as UtteranceScore
    from asr_service.evaluation.scoring import score as score
    from asr_service.evaluation.significance import Comparison as Comparison
    from asr_service.evaluation.significance import compare as compare
    from asr_service.evaluation.store import load as load
    from asr_service.evaluation.store import save as save
    from asr_service.evaluation.wer import WordErrors as WordErrors

_HOMES = {
    "Comparison": "significance",
    "Evaluation": "result",
    "Interval": "result",
    "ManifestProblems": "problems",
    "Normalizer": "normalizer",
    "Output": "output",
    "Reference": "reference",
    "Timing": "output",
    "UtteranceScore": "result",
    "WordErrors": "wer",
    "compare": "significance",
    "load": "store",
    "read_outputs": "hypotheses",
    "read_references": "references",
    "save": "store",
    "score": "scoring",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
