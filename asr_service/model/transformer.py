"""The whole model: encoder, CTC heads, decoder. Training, evaluation and serving use this one.

Dimensions: B batch, T feature frames, F mel bins, T4 and T8 encoder frames (40 and 80 ms), U tokens, V word pieces,
N phones.
"""

from __future__ import annotations

from torch import Tensor, nn

from asr_service.model.config import TransformerConfig
from asr_service.model.decoder import Decoder
from asr_service.model.encoder import ChunkMask, Encoder, EncoderOutput
from asr_service.model.layers import length_mask


class Transformer(nn.Module):
    """Speech Transformer: features in; word-piece CTC, phone CTC and an autoregressive decoder out."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.ctc_head = nn.Linear(config.d_model, config.vocab_size)
        self.phone_head: nn.Linear | None = None
        if config.phone_vocab_size:
            self.phone_head = nn.Linear(config.d_model, config.phone_vocab_size)

    def encode(self, features: Tensor, lengths: Tensor, chunk: ChunkMask | None = None) -> EncoderOutput:
        """(B, T, F), (B,) → EncoderOutput; see `Encoder.forward`."""
        out: EncoderOutput = self.encoder(features, lengths, chunk)
        return out

    def ctc_logits(self, output: EncoderOutput) -> Tensor:
        """Word-piece CTC, (B, T8, V)."""
        out: Tensor = self.ctc_head(output.hidden)
        return out

    def phone_logits(self, output: EncoderOutput) -> Tensor | None:
        """Upper phone CTC, (B, T4, N), or None for a model without phones."""
        if self.phone_head is None or output.phone_hidden is None:
            return None
        out: Tensor = self.phone_head(output.phone_hidden)
        return out

    def decoder_logits(self, token_ids: Tensor, output: EncoderOutput) -> Tensor:
        """Teacher forcing over `encoder_out`: (B, U) → (B, U, V)."""
        mask = length_mask(output.lengths, output.hidden.shape[1])
        out: Tensor = self.decoder(token_ids, output.hidden, mask)
        return out
