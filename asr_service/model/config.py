"""One configuration; a preset is a point in it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, get_args

from asr_service.errors import ConfigError

Stem = Literal["conv4"]
Positions = Literal["sinusoidal", "rotary"]
Norm = Literal["pre", "post"]
Activation = Literal["relu", "gelu"]

# Three word pieces are blank, begin and end.
_LEAST = {
    **dict.fromkeys(("n_mels", "stem_channels", "d_model", "n_heads", "ffn_dim", "encoder_layers"), 1),
    **dict.fromkeys(("decoder_layers", "conv_kernel", "phone_vocab_size"), 0),
    "vocab_size": 4,
}
_CHOICES = {
    name: get_args(choices)
    for name, choices in (("stem", Stem), ("positions", Positions), ("norm", Norm), ("activation", Activation))
}


@dataclass(frozen=True, slots=True)
class TransformerConfig:
    """Shape of the model.

    Attributes:
        n_mels: mel bins of the front end (F).
        stem: `conv4`, two 3×3 convolutions of stride 2: 10 ms frames in, 40 ms frames out.
        stem_channels: channels of the stem's convolutions.
        d_model, n_heads, ffn_dim: width of all layers.
        encoder_layers, decoder_layers: depth.
        downsample_after: the encoder's frames are merged two by two after this layer (None: never).
        positions, norm, activation: as in the design's table; `post` is LayerNorm(x + sublayer(x)) of the 2017 paper.
        conv_kernel: width of the depthwise convolution in encoder blocks, odd; 0 leaves the module out.
        vocab_size: word pieces, blank (0), begin and end included.
        phone_vocab_size: phones and blank (0); 0 leaves the phone heads out.
        phone_layer: the lower phone CTC reads the encoder here, before the downsampling.
        dropout: on residual branches, one mask an utterance and channel.
    """

    n_mels: int = 80
    stem: Stem = "conv4"
    stem_channels: int = 32
    d_model: int = 256
    n_heads: int = 4
    ffn_dim: int = 1024
    encoder_layers: int = 11
    decoder_layers: int = 2
    downsample_after: int | None = 4
    positions: Positions = "rotary"
    norm: Norm = "pre"
    activation: Activation = "gelu"
    conv_kernel: int = 15
    vocab_size: int = 256
    phone_vocab_size: int = 40
    phone_layer: int = 4
    dropout: float = 0.1

    def __post_init__(self) -> None:
        """Raises ConfigError that names a setting outside its limits."""
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(f"{name} is {value!r}, must be a whole number of {least} or more")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name} is {getattr(self, name)!r}, must be {' or '.join(choices)}")
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError(f"dropout is {self.dropout}, must be 0 or more and below 1")
        if self.d_model % self.n_heads or (self.d_model // self.n_heads) % 2:
            raise ConfigError(f"d_model {self.d_model} must be an even multiple of n_heads {self.n_heads}")
        if self.conv_kernel and self.conv_kernel % 2 == 0:
            raise ConfigError(f"conv_kernel {self.conv_kernel} must be odd, or 0 for none")
        if self.downsample_after is not None and not 0 < self.downsample_after < self.encoder_layers:
            raise ConfigError(f"downsample_after {self.downsample_after} must lie inside the encoder")
        if self.phone_vocab_size and not 0 < self.phone_layer <= (self.downsample_after or self.encoder_layers):
            raise ConfigError(f"phone_layer {self.phone_layer} must lie before the downsampling")

    @property
    def subsampling(self) -> int:
        """Feature frames to one frame of the phone CTC."""
        return 4

    @property
    def output_subsampling(self) -> int:
        """Feature frames to one frame of `encoder_out` (word pieces and decoder)."""
        return self.subsampling * (1 if self.downsample_after is None else 2)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> TransformerConfig:
        """Raises ConfigError that names a field this version does not know."""
        known = {field.name for field in dataclasses.fields(TransformerConfig)}
        if unknown := sorted(set(values) - known):
            raise ConfigError(f"unknown model setting {unknown[0]!r}; known are {', '.join(sorted(known))}")
        return TransformerConfig(**values)


PRESETS: dict[str, TransformerConfig] = {
    # Vaswani et al. 2017, base model, on speech features.
    "transformer": TransformerConfig(
        d_model=512,
        n_heads=8,
        ffn_dim=2048,
        encoder_layers=6,
        decoder_layers=6,
        downsample_after=None,
        positions="sinusoidal",
        norm="post",
        activation="relu",
        conv_kernel=0,
        phone_vocab_size=0,
        vocab_size=1024,
    ),
    # Ours: relative positions, chunk-local convolutions, phones at 25 Hz below and word pieces at 12.5 Hz above.
    "streaming-s": TransformerConfig(),
    # The next size, 29.4 M parameters: in int8 they are a file of less than 30 MB.
    "streaming-m": TransformerConfig(d_model=384, n_heads=6, ffn_dim=1472),
    # The smallest, for corpora of an hour.
    "streaming-xs": TransformerConfig(
        stem_channels=16,
        d_model=144,
        n_heads=4,
        ffn_dim=576,
        encoder_layers=7,
        decoder_layers=1,
        vocab_size=128,
    ),
}


def preset(name: str) -> TransformerConfig:
    """Raises ConfigError that lists the presets."""
    if name not in PRESETS:
        raise ConfigError(f"unknown preset {name!r}; there are {', '.join(sorted(PRESETS))}")
    return PRESETS[name]
