"""An evaluation: every utterance's score, what it was scored with, and the rates of all together."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, field

from asr_service.evaluation.output import Output
from asr_service.evaluation.reference import Reference
from asr_service.evaluation.wer import WordErrors

# For people, where Interval.exists is false.
NO_INTERVAL = "no interval: one utterance"


@dataclass(frozen=True, slots=True)
class UtteranceScore:
    """One utterance: both texts as they were scored, after normalisation, and the errors between them.

    Attributes:
        characters: errors of the letters, spaces counted.
        alignment: the operations of the words, one letter each: C, S, D, I (see alignment.aligned_words).
    """

    reference: Reference
    output: Output
    scored_reference: str
    scored_hypothesis: str
    words: WordErrors
    characters: WordErrors
    alignment: str


@dataclass(frozen=True, slots=True)
class Interval:
    """A bootstrap interval.

    Attributes:
        over: what was drawn with replacement, "speakers" or "utterances"; "nothing" where there is one utterance at
            most, so that nothing is known of others: `low` and `high` are the rate, and no interval.
    """

    low: float
    high: float
    over: str
    level: float = 0.95
    samples: int = 2000
    seed: int = 0

    @property
    def exists(self) -> bool:
        return self.over != "nothing"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Scores of one system on one test set.

    Attributes:
        system: a name for people, such as a model and its mode.
        normalizer: name and version, such as `basic-1`.
        costs: of the alignment, `equal` or `sclite`.
        wer_interval: of the word error rate.
        about: what made it: model hash, command, machine, commit, date.
    """

    system: str
    normalizer: str
    costs: str
    utterances: tuple[UtteranceScore, ...]
    wer_interval: Interval
    about: Mapping[str, str] = field(default_factory=dict)

    @property
    def words(self) -> WordErrors:
        return sum((utterance.words for utterance in self.utterances), WordErrors())

    @property
    def characters(self) -> WordErrors:
        return sum((utterance.characters for utterance in self.utterances), WordErrors())

    @property
    def wer(self) -> float:
        return self.words.rate

    @property
    def cer(self) -> float:
        return self.characters.rate

    @property
    def ser(self) -> float:
        """Sentence error rate: the share of utterances with an error."""
        return sum(utterance.words.errors > 0 for utterance in self.utterances) / max(1, len(self.utterances))

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        words, interval = self.words, self.wer_interval
        between = f"{100 * interval.low:.2f} to {100 * interval.high:.2f} %" if interval.exists else NO_INTERVAL
        rows = (
            ("WER", f"{100 * self.wer:.2f} %"),
            (f"{100 * interval.level:g} % interval", between),
            ("drawn", interval.over),
            ("substitutions, deletions, insertions", f"{words.substitutions}, {words.deletions}, {words.insertions}"),
            ("reference words", str(words.reference_words)),
            ("CER", f"{100 * self.cer:.2f} %"),
            ("SER", f"{100 * self.ser:.2f} %"),
            ("utterances", str(len(self.utterances))),
            ("normalizer, costs", f"{self.normalizer}, {self.costs}"),
        )
        body = "".join(f"<tr><th>{name}</th><td>{html.escape(value)}</td></tr>" for name, value in rows)
        return f"<table><caption>{html.escape(self.system)}</caption><tbody>{body}</tbody></table>"
