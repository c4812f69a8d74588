"""The encoder: chunks of a stream give what the whole gives under the chunk mask, alone or in a batch.

Dimensions: B batch, T feature frames; a chunk of C 40 ms frames is 4·C feature frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from asr_service.model.cache import EncoderCache
from asr_service.model.encoder import ChunkMask, EncoderOutput
from asr_service.model.layers import ChannelDropout
from asr_service.model.transformer import Transformer
from tests.model.conftest import random_features, tiny_model

TOLERANCE = 1e-4
KINDS = {
    "merge, phones, convolution": {},
    "no convolution": {"conv_kernel": 0},
    "no phones": {"phone_vocab_size": 0},
    "no merge": {"downsample_after": None, "phone_vocab_size": 0},
    "post-norm": {"norm": "post"},
}


def row_of(output: EncoderOutput, row: int) -> list[Tensor]:
    """What counts of one row, on the frames that count."""
    length, phone_length = int(output.lengths[row]), int(output.phone_lengths[row])
    parts = [output.hidden[row, :length]]
    parts += [x[row, :phone_length] for x in (output.phone_hidden, output.lower_phone_logits) if x is not None]
    return parts


def streamed(
    model: Transformer, features: Tensor, lengths: Tensor, chunk: int, left: int, cache: EncoderCache | None = None
) -> list[list[Tensor]]:
    """Push rows through `forward_chunk`, all in one batch until the longest ends; each row's parts joined."""
    cache = EncoderCache.empty(model.config, len(lengths), left, chunk) if cache is None else cache
    rows: list[list[list[Tensor]]] = [[] for _ in lengths]
    for begin in range(0, features.shape[1], 4 * chunk):
        here = (lengths - begin).clamp(0, 4 * chunk)
        output = model.encoder.forward_chunk(features[:, begin : begin + 4 * chunk], here, cache)
        for row, pieces in enumerate(rows):
            if here[row] > 0:
                pieces.append(row_of(output, row))
    return [[torch.cat(part) for part in zip(*pieces, strict=True)] for pieces in rows]


def assert_same(ours: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("chunk", "left"), [(2, 4), (4, 0), (8, 16), (16, 128)])
def test_chunks_give_what_the_whole_gives_under_the_chunk_mask(kind: str, chunk: int, left: int) -> None:
    model = tiny_model(**KINDS[kind])
    features, lengths = random_features(203, 160, 97, 33, 8, 1)
    whole = model.encode(features, lengths, ChunkMask(chunk, left))
    for row, parts in enumerate(streamed(model, features, lengths, chunk, left)):
        assert_same(parts, row_of(whole, row))


def test_full_context_is_something_else_than_chunks() -> None:
    model = tiny_model()
    features, lengths = random_features(200)
    full, chunked = model.encode(features, lengths), model.encode(features, lengths, ChunkMask(4, 8))
    assert (full.hidden - chunked.hidden).abs().max() > 0.01


def test_one_chunk_longer_than_the_utterance_is_full_context() -> None:
    model = tiny_model()
    features, lengths = random_features(120, 77)
    full, chunked = model.encode(features, lengths), model.encode(features, lengths, ChunkMask(64, 0))
    for row in range(2):
        assert_same(row_of(chunked, row), row_of(full, row))


@dataclass(frozen=True)
class IrregularMask(ChunkMask):
    """Chunks that start at `starts` (40 ms frames)."""

    starts: tuple[int, ...] = (0,)

    def halved(self) -> IrregularMask:
        return IrregularMask(self.chunk // 2, self.left // 2, tuple(start // 2 for start in self.starts))

    def visible(self, frames: int, device: torch.device) -> Tensor:
        seen = torch.zeros(frames, frames, dtype=torch.bool, device=device)
        for begin, end in zip(self.starts, [*self.starts[1:], frames], strict=True):
            seen[begin:end, max(0, begin - self.left) : end] = True
        return seen


def cut_stream(model: Transformer, features: Tensor, cuts: Sequence[int], chunk: int, left: int) -> list[Tensor]:
    """One stream whose pieces end at `cuts` (feature frames), each padded with noise to a whole chunk, beside a row
    that is full every time."""
    cache = EncoderCache.empty(model.config, 2, left, chunk)
    pieces = []
    for number, (begin, end) in enumerate(zip([0, *cuts[:-1]], cuts, strict=True)):
        batch, _ = random_features(4 * chunk, 4 * chunk, seed=100 + number)
        batch[0, : end - begin] = features[0, begin:end]
        output = model.encoder.forward_chunk(batch, torch.tensor([end - begin, 4 * chunk]), cache)
        pieces.append(row_of(output, 0))
    return [torch.cat(part) for part in zip(*pieces, strict=True)]


def looking_ahead(model: Transformer, features: Tensor, chunk: int, look: int, left: int) -> list[Tensor]:
    """One stream, (1, T, F), in chunks with look-ahead (40 ms frames), beside a row of noise."""
    cache, pieces, begin, total = EncoderCache.empty(model.config, 2, left, chunk + look), [], 0, features.shape[1]
    while begin < total:
        length = min(4 * (chunk + look), total - begin)
        kept = length if begin + length == total else 4 * chunk
        batch, _ = random_features(4 * (chunk + look), 4 * (chunk + look), seed=begin)
        batch[0, :length] = features[0, begin : begin + length]
        output = model.encoder.forward_chunk(
            batch, torch.tensor([length, batch.shape[1]]), cache, kept=torch.tensor([kept, 4 * chunk])
        )
        pieces.append(row_of(output, 0))
        begin += kept
    return [torch.cat(part) for part in zip(*pieces, strict=True)]


@dataclass(frozen=True)
class LookaheadMask(ChunkMask):
    """A chunk sees `look` frames after it; the chunks that those complete are the stream's last."""

    look: int = 0

    def visible(self, frames: int, device: torch.device) -> Tensor:
        seen = torch.zeros(frames, frames, dtype=torch.bool, device=device)
        begin = 0
        while begin < frames:
            end = min(begin + self.chunk + self.look, frames)
            kept = frames if end == frames else begin + self.chunk
            seen[begin:kept, max(0, begin - self.left) : end] = True
            begin = kept
        return seen


@pytest.mark.parametrize(("chunk", "look", "left"), [(8, 4, 16), (4, 8, 8), (16, 2, 128)])
def test_with_one_layer_looking_ahead_is_a_wider_mask(chunk: int, look: int, left: int) -> None:
    """With more layers it is no mask: what a chunk sees of the next, the next computes again with its own future."""
    model = tiny_model(encoder_layers=1, downsample_after=None, phone_layer=1, conv_kernel=0)
    features, lengths = random_features(203)
    whole = model.encode(features, lengths, LookaheadMask(chunk, left, look))
    assert_same(looking_ahead(model, features, chunk, look, left), row_of(whole, 0))


def test_looking_ahead_to_the_end_is_full_context_for_the_chunk() -> None:
    model = tiny_model()
    features, lengths = random_features(160)
    full = model.encode(features, lengths)
    output = model.encoder.forward_chunk(
        features, lengths, EncoderCache.empty(model.config, 1, 16, 40), kept=torch.tensor([64])
    )
    assert output.lengths.tolist() == [8] and output.phone_lengths.tolist() == [16]
    assert_same(
        row_of(output, 0), [part[: len(kept)] for part, kept in zip(row_of(full, 0), row_of(output, 0), strict=True)]
    )


def test_what_lies_beyond_the_lookahead_changes_nothing() -> None:
    model = tiny_model()
    features, _ = random_features(160)
    other = features.clone()
    other[:, 112:] = torch.randn_like(other[:, 112:])
    ours, theirs = (looking_ahead(model, x, 8, 4, 16)[0][:12] for x in (features, other))
    assert_same([ours], [theirs])
    beyond = [looking_ahead(model, x, 8, 4, 16)[0] for x in (features, other)]
    assert (beyond[0] - beyond[1]).abs().max() > 0.01


def test_a_cut_in_a_chunk_and_more_audio_is_a_chunk_boundary_like_any_other() -> None:
    """An endpoint cuts the chunk at a multiple of 8 feature frames; what follows sees all that came before."""
    model = tiny_model(conv_kernel=0)  # the convolution is in the next test: its whole form knows equal chunks only
    features, lengths = random_features(180)
    cuts = [32, 40, 72, 88, 120, 152, 176, 180]
    mask = IrregularMask(8, 16, tuple([0] + [cut // 4 for cut in cuts[:-1]]))
    whole = model.encode(features, lengths, mask)
    assert_same(cut_stream(model, features, cuts, chunk=8, left=16), row_of(whole, 0))


def test_a_cut_chunk_padded_into_a_batch_is_the_cut_chunk_alone() -> None:
    model = tiny_model()
    features, _ = random_features(180)
    cuts = [32, 40, 72, 88, 120, 152, 176, 180]
    cache = EncoderCache.empty(model.config, 1, 16, 8)
    pieces = []
    for begin, end in zip([0, *cuts[:-1]], cuts, strict=True):
        output = model.encoder.forward_chunk(features[:, begin:end], torch.tensor([end - begin]), cache)
        pieces.append(row_of(output, 0))
    alone = [torch.cat(part) for part in zip(*pieces, strict=True)]
    assert_same(cut_stream(model, features, cuts, chunk=8, left=16), alone)


@pytest.mark.parametrize("mask", [None, ChunkMask(4, 8)])
def test_a_batch_gives_what_each_row_gives_alone(mask: ChunkMask | None) -> None:
    model = tiny_model()
    features, lengths = random_features(150, 97, 40, 3)
    batched = model.encode(features, lengths, mask)
    for row, length in enumerate(lengths.tolist()):
        alone = model.encode(features[row : row + 1, :length], torch.tensor([length]), mask)
        assert_same(row_of(batched, row), row_of(alone, 0))


def test_staggered_streams_in_one_batch_give_what_each_gives_alone() -> None:
    """Rows of one step are at different places of their streams, as in a server."""
    model, chunk, left = tiny_model(), 4, 8
    features, lengths = random_features(96, 96, 96)
    whole = model.encode(features, lengths, ChunkMask(chunk, left))
    cache = EncoderCache.empty(model.config, 3, left, chunk)
    pieces: list[list[list[Tensor]]] = [[], [], []]
    for turn in range(6 + 2):
        rows = [row for row in range(3) if 0 <= turn - row < 6]
        batch = torch.stack([features[row, (turn - row) * 16 : (turn - row + 1) * 16] for row in rows])
        output = model.encoder.forward_chunk(batch, torch.full((len(rows),), 16), cache, torch.tensor(rows))
        for place, row in enumerate(rows):
            pieces[row].append(row_of(output, place))
    for row in range(3):
        assert_same([torch.cat(part) for part in zip(*pieces[row], strict=True)], row_of(whole, row))


def test_frames_beyond_the_length_do_not_matter() -> None:
    model = tiny_model()
    features, lengths = random_features(150, 61)
    output = model.encode(features, lengths)
    poisoned = torch.cat([features, torch.full((2, 30, 16), 1e4)], dim=1)
    poisoned[1, 61:] = -1e4
    again = model.encode(poisoned, lengths)
    for row in range(2):
        assert_same(row_of(again, row), row_of(output, row))


def poison(cache: EncoderCache, row: int) -> None:
    for tensor in cache._tensors():
        tensor[row] = 8 if tensor is cache.filled or tensor is cache.position else 1e4


def test_a_row_that_is_reset_leaks_nothing_of_the_stream_before() -> None:
    model = tiny_model()
    features, lengths = random_features(96, 96)
    fresh = streamed(model, features, lengths, 4, 8)
    cache = EncoderCache.empty(model.config, 2, 8, 4)
    poison(cache, 1)
    poisoned = streamed(model, features, lengths, 4, 8, cache)
    assert (poisoned[1][0] - fresh[1][0]).abs().max() > 0.01  # poison is poison
    cache, unused = EncoderCache.empty(model.config, 2, 8, 4), EncoderCache.empty(model.config, 1, 8, 4)
    poison(cache, 1)
    cache.begin(1, unused)
    for row in range(2):
        for ours, expected in zip(streamed(model, features, lengths, 4, 8, cache)[row], fresh[row], strict=True):
            torch.testing.assert_close(ours, expected, rtol=0, atol=0)
        cache.begin(0, unused)
        cache.begin(1, unused)


def test_a_row_that_is_reset_is_sound_whatever_the_stream_before_has_broken() -> None:
    model = tiny_model()
    features, lengths = random_features(96, 96)
    cache = EncoderCache.empty(model.config, 2, 8, 4)
    for tensor in (
        cache.stem1,
        cache.stem2,
        *(x for layer in cache.layers for x in (layer.key, layer.value, layer.conv)),
    ):
        tensor[1] = torch.nan
    cache.begin(1, EncoderCache.empty(model.config, 1, 8, 4))
    fresh = streamed(model, features, lengths, 4, 8)
    assert_same(streamed(model, features, lengths, 4, 8, cache)[1], fresh[1])


def test_an_unfilled_window_does_not_look_at_what_lies_in_it() -> None:
    """Only `filled` says what counts of the keys and values, so a reset could not be half done unseen."""
    model = tiny_model(conv_kernel=0)
    features, lengths = random_features(96)
    cache = EncoderCache.empty(model.config, 1, 8, 4)
    for layer in cache.layers:
        layer.key += 30.0
        layer.value += 30.0
    assert_same(streamed(model, features, lengths, 4, 8, cache)[0], streamed(model, features, lengths, 4, 8)[0])


@pytest.mark.parametrize("position", [10**6, 10**9 + 2])
def test_a_stream_is_the_same_however_long_it_has_lasted(position: int) -> None:
    model = tiny_model()
    features, lengths = random_features(200)
    cache = EncoderCache.empty(model.config, 1, 16, 4)
    cache.position += position
    assert_same(streamed(model, features, lengths, 4, 16, cache)[0], streamed(model, features, lengths, 4, 16)[0])


def test_a_step_changes_its_own_rows_only() -> None:
    model = tiny_model()
    cache = EncoderCache.empty(model.config, 3, 8, 4)
    features, lengths = random_features(16, 16)
    model.encoder.forward_chunk(features, lengths, cache, torch.tensor([2, 0]))
    for tensor in cache._tensors():
        assert tensor[0].any() and tensor[2].any() and not tensor[1].any()


def test_a_step_that_raises_can_be_done_again() -> None:
    """The engine may try a batch again without the stream that broke it."""
    model = tiny_model()
    features, lengths = random_features(96, 96)
    expected = streamed(model, features, lengths, 4, 8)
    cache = EncoderCache.empty(model.config, 2, 8, 4)
    rows: list[list[list[Tensor]]] = [[], []]
    norm = model.encoder.final_norm
    for begin in range(0, 96, 16):
        chunk, here = features[:, begin : begin + 16], torch.full((2,), 16)
        model.encoder.final_norm = torch.nn.LayerNorm(5)
        with pytest.raises(RuntimeError):
            model.encoder.forward_chunk(chunk + 1.0, here, cache)
        model.encoder.final_norm = norm
        output = model.encoder.forward_chunk(chunk, here, cache)
        for row, pieces in enumerate(rows):
            pieces.append(row_of(output, row))
    for row in range(2):
        assert_same([torch.cat(part) for part in zip(*rows[row], strict=True)], expected[row])


@pytest.mark.parametrize(("frames", "chunk", "left"), [(12, 4, 4), (13, 4, 8), (7, 2, 0), (9, 16, 2)])
def test_the_chunk_mask_shows_the_own_chunk_and_the_left_context(frames: int, chunk: int, left: int) -> None:
    visible = ChunkMask(chunk, left).visible(frames, torch.device("cpu"))
    for i in range(frames):
        begin = i // chunk * chunk
        assert [j for j in range(frames) if visible[i, j]] == list(
            range(max(0, begin - left), min(frames, begin + chunk))
        )


@pytest.mark.parametrize(("frames", "expected"), [(1, (1, 1)), (4, (1, 1)), (5, (2, 1)), (8, (2, 1)), (9, (3, 2))])
def test_frames_are_40_ms_below_the_merge_and_80_ms_above(frames: int, expected: tuple[int, int]) -> None:
    features, lengths = random_features(frames)
    output = tiny_model().encode(features, lengths)
    assert (int(output.phone_lengths[0]), int(output.lengths[0])) == expected
    assert (output.phone_hidden.shape[1], output.hidden.shape[1]) == expected


@pytest.mark.parametrize("downsample_after", [None, 1])
def test_every_weight_of_the_encoder_has_a_gradient(downsample_after: int | None) -> None:
    """Processes that share gradients wait for each: a weight that nothing uses would keep them."""
    model = tiny_model(encoder_layers=2, downsample_after=downsample_after, phone_layer=1).train()
    with torch.enable_grad():
        output = model.requires_grad_().encode(*random_features(60, 33))
        parts = (output.hidden, output.phone_hidden, output.lower_phone_logits)
        torch.stack([part.sum() for part in parts if part is not None]).sum().backward()
    assert [name for name, weight in model.encoder.named_parameters() if weight.grad is None] == []


def test_dropout_silences_whole_channels_makes_up_for_them_and_does_nothing_in_use() -> None:
    torch.manual_seed(0)
    dropout, x = ChannelDropout(0.25), torch.ones(4, 3, 500)
    out = dropout.train()(x)
    assert sorted(set(out.flatten().tolist())) == pytest.approx([0.0, 4 / 3])
    assert out.mean().item() == pytest.approx(1.0, abs=0.05)
    assert torch.equal(out, out[:, :1].expand_as(out))
    assert torch.equal(dropout.eval()(x), x)
