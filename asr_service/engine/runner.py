"""The only file of the engine that runs the model.

Dimensions: B streams of a step, T feature frames (10 ms), F mel bins, T4 and T8 encoder frames (40 and 80 ms),
N phones, V word pieces, D model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asr_service.decoding.config import DecodingConfig
from asr_service.engine.voice_activity import VoiceBands
from asr_service.features import STEP_FRAMES
from asr_service.model.bundle import Bundle
from asr_service.model.cache import EncoderCache
from asr_service.model.encoder import EncoderOutput
from asr_service.model.packed import packed
from asr_service.model.precision import DTYPES, supported_precision
from asr_service.parts import Parts, at_once


@dataclass(slots=True)
class Encoded:
    """What the encoder says of a stretch of one stream.

    Attributes:
        phones: (T4, N) log-probabilities of the phone CTC, or of both together (`DecodingConfig.lower_phones`); (T4, 0)
            for a model without phones.
        pieces: (T8, V) log-probabilities of the word-piece CTC.
        hidden: (T8, D) `encoder_out`, for the decoder.
        ahead: (A, N) log-probabilities of phones in the frames after these that a chunk looks ahead at: they lack a
            future of their own, and come again with the next chunk. Empty or None where nothing was looked ahead at.
    """

    phones: NDArray[np.float32]
    pieces: NDArray[np.float32]
    hidden: Tensor
    ahead: NDArray[np.float32] | None = None


def parts_of(encoded: Encoded, frames: int) -> Iterator[Encoded]:
    """An encoded stretch in parts of `frames` frames of `encoder_out`, the last one shorter."""
    ratio = -(-len(encoded.phones) // max(1, len(encoded.pieces)))  # phone frames to one of `encoder_out`
    for start in range(0, len(encoded.pieces), frames):
        end = start + frames
        yield Encoded(encoded.phones[start * ratio : end * ratio], encoded.pieces[start:end], encoded.hidden[start:end])


class ModelRunner:
    """Features, encoder chunks of many streams at once, whole utterances."""

    def __init__(self, bundle: Bundle, *, streams: int, threads: int, precision: str = "auto") -> None:
        """`precision`: see `config.EngineSettings`. `self.bundle` is `bundle` with its models made for that.

        Raises ConfigError where the CPU lacks that precision.
        """
        torch.set_num_threads(threads)
        self.precision = supported_precision(precision)
        neural_lm = bundle.neural_lm
        if neural_lm is not None:
            neural_lm = packed(neural_lm[0], self.precision), neural_lm[1]
        self.bundle = dataclasses.replace(bundle, model=packed(bundle.model, self.precision), neural_lm=neural_lm)
        self._lower_phones = DecodingConfig.from_dict(bundle.decoding).lower_phones
        subsampling = bundle.model.config.subsampling
        self.chunk_features = bundle.streaming.chunk_frames * subsampling
        self.lookahead_features = bundle.streaming.lookahead_frames * subsampling
        front_end = bundle.front_end
        self._voice_bands = VoiceBands(front_end.spectrogram.mel_scale.fb.numpy(), front_end.config.sample_rate_hz)
        self._lead = front_end.silence(bundle.streaming.lead_frames * subsampling)
        self._cache, self._begun = self._empty_cache(streams), self._empty_cache(1)
        if bundle.model.config.positions == "rotary":  # others are not encoded in chunks
            self._begin()

    def _empty_cache(self, streams: int) -> EncoderCache:
        geometry = self.bundle.streaming
        return EncoderCache.empty(
            self.bundle.model.config,
            streams,
            geometry.left_frames,
            geometry.chunk_frames + geometry.lookahead_frames,
            dtype=DTYPES[self.precision],
        )

    @torch.inference_mode()
    def _begin(self) -> None:
        """What a stream carries when it begins: it has heard silence, in steps that no geometry's cache is too small
        for.
        """
        for start in range(0, len(self._lead), STEP_FRAMES):
            step = self._lead[start : start + STEP_FRAMES].unsqueeze(0)
            self.bundle.model.encoder.forward_chunk(step, torch.tensor([STEP_FRAMES]), self._begun)
        for slot in range(len(self._cache.position)):
            self.reset(slot)

    @torch.inference_mode()
    def features(
        self, pcm: NDArray[np.float32], carry: NDArray[np.float32], *, last: bool = False
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Samples and the carry of before → features (T, F), their levels (T, K) (see voice_activity), new carry.

        T is a multiple of 8 but for the `last` call of a stream (see `LogMel.step`).
        """
        front_end = self.bundle.front_end
        features, rest = front_end.step(torch.from_numpy(pcm), torch.from_numpy(carry), last=last)
        levels = self._voice_bands((features * front_end.std + front_end.mean).numpy())
        return features.numpy(), levels, rest.numpy()

    def reset(self, slot: int) -> None:
        """A new stream begins in this slot."""
        self._cache.begin(slot, self._begun)

    @torch.inference_mode()
    def encode_chunks(
        self, slots: Sequence[int], chunks: Sequence[NDArray[np.float32]], kept: Sequence[int]
    ) -> list[Encoded]:
        """The next chunk with its look-ahead, (T, F), of each of these streams, in one batch.

        The first `kept` frames of each are encoded for good, the others come again with the next chunk.
        """
        width = self.bundle.model.config.n_mels
        span = self.chunk_features + self.lookahead_features
        features = np.zeros((len(slots), span, width), dtype=np.float32)
        for row, chunk in zip(features, chunks, strict=True):
            row[: len(chunk)] = chunk
        lengths = torch.tensor([len(chunk) for chunk in chunks])
        output = self.bundle.model.encoder.forward_chunk(
            torch.from_numpy(features), lengths, self._cache, torch.tensor(slots), torch.tensor(kept)
        )
        return self._encoded(output, -(-lengths // self.bundle.model.config.subsampling))

    def encode_whole(self, features: NDArray[np.float32]) -> Encoded:
        """One utterance, (T, F), with full context."""
        return self.encode_utterances([features])[0]

    def encode_utterances(self, utterances: Sequence[NDArray[np.float32]]) -> list[Encoded]:
        """Utterances, (T, F) each, with full context, padded to the longest and encoded in one batch."""
        return at_once(self.utterance_parts(utterances))

    @torch.inference_mode()
    def utterance_parts(self, utterances: Sequence[NDArray[np.float32]]) -> Parts[list[Encoded]]:
        """`encode_utterances` block by block of the encoder."""
        lead = len(self._lead)
        lengths = [lead + len(features) for features in utterances]
        padded = np.zeros((len(utterances), max(lengths), self.bundle.model.config.n_mels), dtype=np.float32)
        padded[:, :lead] = self._lead
        for row, features in zip(padded[:, lead:], utterances, strict=True):
            row[: len(features)] = features
        output = yield from self.bundle.model.encoder.parts(torch.from_numpy(padded), torch.tensor(lengths))
        yield
        config = self.bundle.model.config
        phones, pieces = lead // config.subsampling, lead // config.output_subsampling
        return [
            dataclasses.replace(
                whole, phones=whole.phones[phones:], pieces=whole.pieces[pieces:], hidden=whole.hidden[pieces:]
            )
            for whole in self._encoded(output)
        ]

    def _encoded(self, output: EncoderOutput, heard: Tensor | None = None) -> list[Encoded]:
        """`heard`: (B,) frames of 40 ms that were encoded, where that is more than the output's lengths."""
        pieces = torch.log_softmax(self.bundle.model.ctc_logits(output), dim=-1).numpy()
        phone_logits = self._phone_logits(output)
        heard = output.phone_lengths if heard is None else heard
        rows = []
        for row, (frames, phone_frames, all_frames) in enumerate(
            zip(output.lengths.tolist(), output.phone_lengths.tolist(), heard.tolist(), strict=True)
        ):
            if phone_logits is None:
                phones = np.zeros((all_frames, 0), dtype=np.float32)
            else:
                phones = torch.log_softmax(phone_logits[row, :all_frames], dim=-1).numpy()
            rows.append(
                Encoded(phones[:phone_frames], pieces[row, :frames], output.hidden[row, :frames], phones[phone_frames:])
            )
        return rows

    def _phone_logits(self, output: EncoderOutput) -> Tensor | None:
        """(B, T4, N). The lower phone CTC has seen less, and errs elsewhere: a geometric mean of both is better."""
        upper, lower = self.bundle.model.phone_logits(output), output.lower_phone_logits
        if upper is None or lower is None or not self._lower_phones:
            return upper
        return upper.lerp(lower, self._lower_phones)
