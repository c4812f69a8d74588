"""How a bundle is searched: tuned on dev, kept in the bundle's config.json under `decoding`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from asr_service.decoding.confidence import ConfidenceModels
from asr_service.decoding.ctc_prefix_beam import PrefixBeamOptions
from asr_service.decoding.joint_beam import JointBeamOptions
from asr_service.decoding.lexicon_beam import MAX_N_BEST, LexiconBeamOptions
from asr_service.decoding.rescoring import RescoringWeights
from asr_service.errors import BundleError
from asr_service.toml_types import of_type


@dataclass(frozen=True, slots=True)
class DecodingConfig:
    """Search settings by search.

    Attributes:
        accurate: the lexicon beam over a whole utterance.
        streaming: the same beam while somebody speaks: narrower, for every stream pays it.
        pieces: the CTC prefix beam over word pieces, for bundles without a lexicon or a language model.
        joint: the joint CTC/attention beam, likewise.
        lower_phones: share of the lower phone CTC, which reads the encoder below its merge, in the logits of the phones
            that are searched and ranked; 0 to 1.
        rescoring: weights of the final ranking of the lexicon beam's hypotheses.
        n_best, streaming_n_best: hypotheses that are ranked, by mode; in a live stream somebody waits for it.
        neural_margin, streaming_neural_margin: hypotheses further below the best one, while the n-gram stands in for
            the neural language model, are not read by it, unless they are wanted as alternatives. With a spelled word,
            which the n-gram does not know, those that are so far behind without the neural language model.
        confidence: how words of the lexicon beam's hypotheses get their confidence, by mode.
        agreement: updates that a partial word must stand unchanged to be called stable; 0: until no hypothesis that
            could still win denies it, which makes it stable before as well.
        hold_back_s: a partial word is shown when it has ended this long before the last frame heard, look-ahead
            included, or is stable: younger ones still change.
        confidence_scale: factor on the scores before they become posteriors; below 1 it makes them less sure.
    """

    accurate: LexiconBeamOptions = field(default_factory=LexiconBeamOptions)
    streaming: LexiconBeamOptions = field(default_factory=LexiconBeamOptions)
    pieces: PrefixBeamOptions = field(default_factory=PrefixBeamOptions)
    joint: JointBeamOptions = field(default_factory=JointBeamOptions)
    lower_phones: float = 0.0
    rescoring: RescoringWeights = field(default_factory=RescoringWeights)
    n_best: int = 32
    streaming_n_best: int = 32
    neural_margin: float = 6.0
    streaming_neural_margin: float = 4.0
    confidence_scale: float = 0.3
    agreement: int = 24
    hold_back_s: float = 0.0
    confidence: ConfidenceModels = field(default_factory=ConfidenceModels)

    def __post_init__(self) -> None:
        for name, low, high in (
            ("lower_phones", 0.0, 1.0),
            ("n_best", 1, MAX_N_BEST),
            ("streaming_n_best", 1, MAX_N_BEST),
            ("neural_margin", 0.0, 1e6),
            ("streaming_neural_margin", 0.0, 1e6),
            ("agreement", 0, 1000),
            ("hold_back_s", 0.0, 10.0),
            ("confidence_scale", 0.0, 10.0),
        ):
            if not low <= (value := getattr(self, name)) <= high:
                raise BundleError(f"config.json: decoding.{name} is {value!r}, must be {low:g} to {high:g}")

    @staticmethod
    def from_dict(values: dict[str, Any]) -> DecodingConfig:
        """Raises BundleError that names what is unknown or out of range."""
        known = {item.name: item.default_factory for item in dataclasses.fields(DecodingConfig)}
        types = get_type_hints(DecodingConfig)
        parts: dict[str, Any] = {}
        for name, value in values.items():
            if name not in known:
                raise BundleError(f"config.json: decoding.{name} is not known; known are {', '.join(known)}")
            factory = known[name]
            try:
                plain = factory is dataclasses.MISSING
                parts[name] = of_type("it", value, types[name]) if plain else _part(factory, value)
            except (TypeError, ValueError) as error:
                raise BundleError(f"config.json: decoding.{name}: {error}") from error
        return DecodingConfig(**parts)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def _part(settings: Any, values: Any) -> Any:
    """The dataclass `settings` of a table. Raises ValueError or TypeError that names what is unknown or wrong."""
    types = get_type_hints(settings)
    table = of_type("it", values, dict)
    if settings is not ConfidenceModels:  # which looks at its own
        table = {name: of_type(name, value, types[name]) if name in types else value for name, value in table.items()}
    return settings(**table)
