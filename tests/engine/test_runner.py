"""The runner's promises in each precision: batched equals alone, and a slot that is used again leaks nothing."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from asr_service.engine.runner import Encoded, ModelRunner
from asr_service.model.bundle import Bundle
from asr_service.model.encoder import ChunkMask
from tests.precisions import PRECISIONS, needs_bf16

# bf16 rounds alike whatever else is in the batch, but for sums that are taken in another order.
TOLERANCES = {"fp32": 1e-4, "bf16": 0.02}
CHUNKS = 5
LEAD = 24  # feature frames of the tiny bundle


def spoken(runner: ModelRunner, seed: int) -> list[NDArray[np.float32]]:
    """Made-up features of one stream: windows of a chunk and its look-ahead."""
    chunk, span = runner.chunk_features, runner.chunk_features + runner.lookahead_features
    features = np.random.default_rng(seed).standard_normal((CHUNKS * chunk + span, 80), dtype=np.float32)
    return [features[number * chunk : number * chunk + span] for number in range(CHUNKS)]


def alone(runner: ModelRunner, windows: list[NDArray[np.float32]], slot: int) -> NDArray[np.float32]:
    runner.reset(slot)
    return np.concatenate(
        [runner.encode_chunks([slot], [window], [runner.chunk_features])[0].phones for window in windows]
    )


@pytest.mark.parametrize("precision", PRECISIONS)
def test_staggered_streams_in_one_batch_give_what_each_gives_alone(tiny_bundle: Bundle, precision: str) -> None:
    runner = ModelRunner(tiny_bundle, streams=5, threads=1, precision=precision)
    slots = [3, 0, 4]
    streams = [spoken(runner, seed) for seed in range(3)]
    expected = [alone(runner, windows, slot=1) for windows in streams]
    found: list[list[NDArray[np.float32]]] = [[], [], []]
    for slot in slots:
        runner.reset(slot)
    for turn in range(CHUNKS + 2):
        now = [row for row in range(3) if 0 <= turn - row < CHUNKS]
        windows = [streams[row][turn - row] for row in now]
        batch = runner.encode_chunks([slots[row] for row in now], windows, [runner.chunk_features] * len(now))
        for row, encoded in zip(now, batch, strict=True):
            found[row].append(encoded.phones)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(np.concatenate(ours), theirs, rtol=0, atol=TOLERANCES[precision])
        assert (np.concatenate(ours).argmax(1) == theirs.argmax(1)).mean() > 0.98


def test_frames_looked_ahead_at_are_what_they_would_be_for_good(tiny_bundle: Bundle) -> None:
    geometry = dataclasses.replace(tiny_bundle.streaming, lookahead_frames=4)
    runner = ModelRunner(dataclasses.replace(tiny_bundle, streaming=geometry), streams=3, threads=1, precision="fp32")
    long, short = spoken(runner, 1)[0], spoken(runner, 2)[0][: runner.chunk_features + 8]
    encoded = runner.encode_chunks([0, 2], [long, short], [runner.chunk_features] * 2)
    for row, window in zip(encoded, (long, short), strict=True):
        runner.reset(1)
        (for_good,) = runner.encode_chunks([1], [window], [len(window)])
        assert row.ahead is not None and len(row.ahead) == (len(window) - runner.chunk_features) // 4
        assert for_good.ahead is not None and not len(for_good.ahead)
        np.testing.assert_allclose(np.concatenate([row.phones, row.ahead]), for_good.phones, rtol=0, atol=1e-4)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_slot_that_is_used_again_leaks_nothing(tiny_bundle: Bundle, precision: str) -> None:
    runner = ModelRunner(tiny_bundle, streams=2, threads=1, precision=precision)
    windows = spoken(runner, 1)
    fresh = alone(runner, windows, slot=0)
    alone(runner, [window * 1e4 for window in windows], slot=0)
    np.testing.assert_array_equal(alone(runner, windows, slot=0), fresh)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("share", [0.25, 1.0])
def test_the_lower_phones_share_in_what_is_searched_whole_and_in_chunks(
    tiny_bundle: Bundle, share: float, precision: str
) -> None:
    def runner(share: float) -> ModelRunner:
        bundle = dataclasses.replace(tiny_bundle, decoding=tiny_bundle.decoding | {"lower_phones": share})
        return ModelRunner(bundle, streams=1, threads=1, precision=precision)

    mixed, upper, lower = (runner(value) for value in (share, 0.0, 1.0))
    windows = spoken(mixed, 3)
    features = np.concatenate(windows)
    answers = [[one.encode_whole(features).phones for one in (mixed, upper, lower)]]
    answers.append([alone(one, windows, slot=0) for one in (mixed, upper, lower)])
    for found, above, below in answers:
        assert np.abs(above - below).mean() > 0.1
        mean = (1 - share) * above + share * below
        expected = mean - np.log(np.exp(mean).sum(-1, keepdims=True))
        np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCES[precision])
    led = torch.cat([mixed.bundle.front_end.silence(LEAD), torch.from_numpy(features)])
    output = mixed.bundle.model.encode(led.unsqueeze(0), torch.tensor([len(led)]))
    assert output.lower_phone_logits is not None
    of_lower = torch.log_softmax(output.lower_phone_logits[0, LEAD // 4 :].float(), dim=-1).numpy()
    np.testing.assert_allclose(answers[0][2], of_lower, rtol=0, atol=1e-4)


def in_steps(runner: ModelRunner, features: NDArray[np.float32]) -> Encoded:
    """Features without look-ahead, a few at a time, in a slot as it is."""
    parts = [
        runner.encode_chunks([0], [part], [len(part)])[0] for part in np.split(features, range(8, len(features), 8))
    ]
    return Encoded(
        np.concatenate([part.phones for part in parts]),
        np.concatenate([part.pieces for part in parts]),
        torch.cat([part.hidden for part in parts]),
    )


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_is_said_at_once_is_encoded_as_if_after_a_short_silence(tiny_bundle: Bundle, precision: str) -> None:
    runner = ModelRunner(tiny_bundle, streams=1, threads=1, precision=precision)
    lead = tiny_bundle.front_end.silence(LEAD)
    features = np.concatenate(spoken(runner, 4))[: 2 * runner.chunk_features]
    model, led = runner.bundle.model, torch.cat([lead, torch.from_numpy(features)])
    mask = ChunkMask(2, tiny_bundle.streaming.left_frames)
    for encoded, output in (
        (runner.encode_whole(features), model.encode(led.unsqueeze(0), torch.tensor([len(led)]))),
        (in_steps(runner, features), model.encoder(led.unsqueeze(0), torch.tensor([len(led)]), mask)),
    ):
        assert (len(encoded.phones), len(encoded.pieces)) == (len(features) // 4, len(features) // 8)
        expected = output.hidden[0, LEAD // 8 :].float()
        torch.testing.assert_close(encoded.hidden.float(), expected, rtol=0, atol=TOLERANCES[precision])


@needs_bf16
def test_bf16_is_near_fp32(tiny_bundle: Bundle) -> None:
    exact, rounded = (ModelRunner(tiny_bundle, streams=1, threads=1, precision=name) for name in TOLERANCES)
    windows = spoken(exact, 2)
    assert np.abs(alone(exact, windows, 0) - alone(rounded, windows, 0)).mean() < 0.1
    features = np.concatenate([window[: exact.chunk_features] for window in windows])
    whole = [runner.encode_whole(features) for runner in (exact, rounded)]
    assert np.abs(whole[0].pieces - whole[1].pieces).mean() < 0.1
    assert whole[1].hidden.dtype == whole[0].hidden.dtype and whole[1].pieces.dtype == np.float32
