"""How a bundle is searched: tuned on dev, kept in the bundle's config.json under `decoding`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from asr_service.decoding.joint_beam import JointBeamOptions
from asr_service.decoding.lexicon_beam import LexiconBeamOptions
from asr_service.decoding.rescoring import RescoringWeights
from asr_service.errors import BundleError


@dataclass(frozen=True, slots=True)
class DecodingConfig:
    """Attributes:
    accurate: the lexicon beam over a whole utterance; its n-best list is rescored.
    streaming: the same beam while somebody speaks: narrower, for every stream pays it.
    joint: the joint CTC/attention beam, for bundles without a lexicon or a language model.
    rescoring: weights of the final ranking.
    n_best: hypotheses that are rescored.
    """

    accurate: LexiconBeamOptions = field(default_factory=LexiconBeamOptions)
    streaming: LexiconBeamOptions = field(default_factory=LexiconBeamOptions)
    joint: JointBeamOptions = field(default_factory=JointBeamOptions)
    rescoring: RescoringWeights = field(default_factory=RescoringWeights)
    n_best: int = 32

    @staticmethod
    def from_dict(values: dict[str, Any]) -> DecodingConfig:
        """Raises BundleError that names what is unknown or out of range."""
        known = {item.name: item.default_factory for item in dataclasses.fields(DecodingConfig)}
        parts: dict[str, Any] = {}
        for name, value in values.items():
            if name not in known:
                raise BundleError(f"config.json: decoding.{name} is not known; known are {', '.join(known)}")
            try:
                parts[name] = value if name == "n_best" else known[name](**value)  # type: ignore[operator]
            except (TypeError, ValueError) as error:
                raise BundleError(f"config.json: decoding.{name}: {error}") from error
        return DecodingConfig(**parts)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)
