"""Batches: a function of examples and seed, of right lengths and targets, and never of a recording without samples."""

from __future__ import annotations

import dataclasses
import itertools
import os
import random
import traceback
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch.overrides import TorchFunctionMode

from asr_service.features import FeatureConfig, LogMel
from asr_service.model.transformer import Transformer
from tests.training.conftest import MODEL, Corpus
from training.augmentation.speed import change_speed
from training.dataset import BatchMaker, Example, cmvn, make_batch, make_examples
from training.loss import Batch, losses
from training.recipe import AugmentConfig, LossConfig

CPU = torch.device("cpu")
PLAIN = AugmentConfig(speeds=(1.0,), freq_masks=0, time_masks=0)


def one_speaker(corpus: Corpus) -> list[Example]:
    return [dataclasses.replace(example, speaker="s") for example in corpus.examples]


def maker(corpus: Corpus, config: AugmentConfig, device: torch.device = CPU) -> BatchMaker:
    return BatchMaker(one_speaker(corpus), corpus.store, corpus.front_end(), config, device)


def test_augmentation_that_does_nothing_gives_the_features_of_the_recordings(corpus: Corpus) -> None:
    augmented = maker(corpus, PLAIN)(range(4), "seed")
    plain = make_batch(corpus.examples[:4], corpus.store, corpus.front_end())
    for row, length in enumerate(plain.lengths):
        alone = corpus.front_end().whole(torch.from_numpy(corpus.store[row] / np.float32(32768.0)))
        torch.testing.assert_close(plain.features[row, :length], alone, atol=1e-4, rtol=1e-4)
    for field in dataclasses.fields(Batch):
        torch.testing.assert_close(getattr(augmented, field.name), getattr(plain, field.name))


def test_one_speed_is_drawn_a_batch_and_lengths_follow_it(corpus: Corpus) -> None:
    plain = make_batch(corpus.examples[:4], corpus.store, corpus.front_end())
    ratios = set()
    for seed in range(12):
        batch = maker(corpus, dataclasses.replace(PLAIN, speeds=(0.9, 1.1)))(range(4), str(seed))
        ratio = round(plain.seconds / batch.seconds, 3)
        ratios.add(ratio)
        torch.testing.assert_close(
            batch.lengths * ratio, plain.lengths.double(), atol=3.0, rtol=0.02, check_dtype=False
        )
    assert ratios == {0.9, 1.1}


def test_two_views_have_the_same_words_at_the_same_times_in_other_noise(corpus: Corpus) -> None:
    config = dataclasses.replace(PLAIN, views=2, noise_probability=1.0, noise_snr_db=(0.0, 0.0))
    batch = maker(corpus, config)(range(6), "seed")
    assert batch.views == 2 and len(batch.features) == 12
    for name in ("lengths", "tokens", "token_lengths", "phones", "phone_lengths"):
        first, second = getattr(batch, name).chunk(2)
        torch.testing.assert_close(first, second)
    one, other = batch.features.chunk(2)
    assert all((one[row] - other[row]).abs().max() > 0.1 for row in range(6))
    assert maker(corpus, config)(range(6), "seed", augmented=False).views == 1


def test_seconds_are_those_of_the_corpus_however_many_views_there_are(corpus: Corpus) -> None:
    one, two = (maker(corpus, dataclasses.replace(PLAIN, views=views))(range(6), "seed") for views in (1, 2))
    assert one.seconds == two.seconds == sum(len(corpus.store[index]) for index in range(6)) / 16_000


def test_a_batch_is_resampled_once_and_its_rows_are_what_each_alone_gives(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(
        "training.dataset.change_speed", lambda waves, speed: asked.append(len(waves)) or change_speed(waves, speed)
    )
    make = maker(corpus, dataclasses.replace(PLAIN, speeds=(0.9,)))
    batch = make(range(6), "seed")
    assert asked == [6]
    heard = []
    make._distort = lambda waves, lengths, *_: heard.append((waves, lengths)) or waves
    make(range(6), "seed")
    ((waves, lengths),) = heard
    for row, length in enumerate(lengths.tolist()):
        alone = change_speed(torch.from_numpy(corpus.store[row] / np.float32(32768.0)), 0.9)
        assert torch.equal(waves[row, :length], alone)
        assert not waves[row, length:].any()
        assert batch.lengths[row] == corpus.front_end().frames(len(alone))


class Waits(TorchFunctionMode):
    """Notes what would make the host wait for a GPU: ordinary memory copied there, and values that are read."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, getattr(function, "__name__", "")
        copied = name in ("tensor", "as_tensor") and kwargs.get("device") is not None
        copied |= name in ("to", "cuda") and any(isinstance(a, torch.device) for a in (*args, *kwargs.values()))
        copied |= name == "__getitem__" and isinstance(args[1], list)
        if (copied and not kwargs.get("non_blocking")) or name in ("item", "tolist", "__int__", "__bool__", "nonzero"):
            frames = (frame for frame in traceback.extract_stack() if f"{os.sep}training{os.sep}" in frame.filename)
            self.seen += [f"{frame.filename}:{frame.lineno}" for frame in frames if "tests" not in frame.filename][-1:]
        return function(*args, **kwargs)


def test_a_batch_is_made_without_waiting_for_what_a_gpu_does(corpus: Corpus) -> None:
    """But for codecs, which are the CPU's."""
    config = dataclasses.replace(
        EVERYTHING, codec_probability=0.0, babble_share=0.5, babble_voices=(1, 2), room_probability=0.5, rooms=2
    )
    examples = [dataclasses.replace(example, speaker=str(example.index % 2)) for example in corpus.examples]
    make = BatchMaker(
        examples, corpus.store, corpus.front_end(), dataclasses.replace(config, warp_probability=0.5, views=2), CPU
    )
    for waits in (nullcontext(), Waits()):  # what is made once may wait
        with waits:
            for seed in "abcdef":
                make(range(5), seed)
    assert waits.seen == []


def test_a_joined_row_has_the_targets_of_its_utterances_in_order(corpus: Corpus) -> None:
    config = dataclasses.replace(PLAIN, join_probability=1.0, join_longest_s=8.0)
    examples = one_speaker(corpus)
    runs = [
        sum((example.tokens for example in examples[first:last]), ())
        for first in range(len(examples))
        for last in range(first + 1, len(examples) + 1)
    ]
    joined = 0
    for seed in range(5):
        batch = maker(corpus, config)([2, 5, 7], str(seed))
        rows = [tuple(row[:n].tolist()) for row, n in zip(batch.tokens, batch.token_lengths, strict=True)]
        assert all(row in runs for row in rows)
        joined += sum(len(row) > 8 for row in rows)
    assert joined


def test_a_background_in_place_of_an_utterance_has_no_targets_and_the_same_length(corpus: Corpus) -> None:
    config = dataclasses.replace(PLAIN, silence_probability=0.5)
    plain = make_batch(corpus.examples[:8], corpus.store, corpus.front_end())
    batch = maker(corpus, config)(range(8), "a")
    silent = batch.token_lengths == 0
    assert 0 < int(silent.sum()) < 8
    assert torch.equal(batch.token_lengths[~silent], plain.token_lengths[~silent])
    assert torch.equal(batch.lengths, plain.lengths)
    torch.testing.assert_close(batch.features[~silent], plain.features[~silent])
    parts = losses(Transformer(MODEL).eval(), batch, LossConfig(), None)
    assert all(torch.isfinite(part) for part in parts.values())


def test_a_batch_of_backgrounds_alone_has_a_loss(corpus: Corpus) -> None:
    batch = maker(corpus, dataclasses.replace(PLAIN, silence_probability=1.0))(range(3), "a")
    parts = losses(Transformer(MODEL), batch, LossConfig(), None)
    parts["total"].backward()
    assert torch.isfinite(parts["total"])
    assert batch.token_lengths.sum() == 0


def test_voices_are_never_the_speakers_own(corpus: Corpus) -> None:
    examples = [dataclasses.replace(example, speaker=str(example.index % 2)) for example in corpus.examples]
    own = {len(corpus.store[example.index]) for example in examples if example.speaker == "1"}
    make = BatchMaker(examples, corpus.store, corpus.front_end(), PLAIN, CPU)
    for seed in range(20):
        voices = make._voices(random.Random(seed), "1", 3)
        assert len(voices) <= 3
        assert not own & {len(voice) for voice in voices}


EVERYTHING = AugmentConfig(
    join_probability=0.3,
    pad_probability=0.5,
    silence_probability=0.2,
    noise_probability=0.7,
    babble_share=0.0,
    gain_probability=0.5,
    telephone_probability=0.3,
    codec_probability=0.2,
)


def test_everything_at_once_is_finite_and_a_function_of_the_seed(corpus: Corpus) -> None:
    make = maker(corpus, EVERYTHING)
    for seed in "abc":
        first, again = make(range(5), seed), make(range(5), seed)
        assert torch.isfinite(first.features).all()
        assert torch.equal(first.features, again.features)
        assert torch.equal(first.tokens, again.tokens)
    assert not torch.equal(make(range(5), "a").features, make(range(5), "b").features)


@pytest.mark.gpu
def test_a_batch_made_on_the_gpu_is_the_one_made_on_the_cpu_up_to_its_noise(corpus: Corpus) -> None:
    """Draws are the host's, so lengths, targets and masks agree; noise samples differ, their statistics do not."""
    gpu = torch.device("cuda")
    for config, tolerance in ((PLAIN, 1e-3), (dataclasses.replace(PLAIN, speeds=(0.9,)), 1e-3), (EVERYTHING, None)):
        here, there = maker(corpus, config)(range(5), "a"), maker(corpus, config, gpu)(range(5), "a")
        assert there.features.is_cuda
        for name in ("lengths", "tokens", "token_lengths", "phones", "phone_lengths"):
            assert torch.equal(getattr(here, name), getattr(there, name).cpu())
        if tolerance is not None:
            torch.testing.assert_close(here.features, there.features.cpu(), atol=tolerance, rtol=tolerance)
        else:
            assert here.features.shape == there.features.shape
            assert float(here.features.mean()) == pytest.approx(float(there.features.mean()), abs=0.1)
            assert float(here.features.std()) == pytest.approx(float(there.features.std()), rel=0.1)


@pytest.mark.parametrize("free", [0, 2**40])
def test_samples_stay_on_the_host_where_the_gpu_lacks_room_for_them(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch, free: int
) -> None:
    moved = []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, 2**40))
    monkeypatch.setattr(torch.Tensor, "to", lambda samples, device: moved.append((samples, device)) or samples)
    samples = corpus.store.samples(torch.device("cuda"))
    assert len(moved) == (free > 0)
    assert samples.dtype == torch.int16
    assert len(samples) == corpus.store.offsets[-1]


class OnHost:
    """Samples that lie beside the device: they must be pinned and copied before they are used."""

    def __init__(self, samples: torch.Tensor, device: str = "meta") -> None:
        self.samples, self.device = samples, torch.device(device)

    def __getitem__(self, part: slice) -> OnHost:
        return OnHost(self.samples[part])

    def pin_memory(self) -> OnHost:
        return OnHost(self.samples, "cpu")

    def to(self, device: torch.device, *, non_blocking: bool) -> torch.Tensor:
        assert self.device.type == "cpu" and non_blocking
        return self.samples.to(device)


def test_copied_samples_give_the_batches_of_those_that_lie_on_the_device(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = maker(corpus, EVERYTHING)
    host = OnHost(corpus.store.samples(CPU))
    monkeypatch.setattr(type(corpus.store), "samples", lambda *_: host)
    here = maker(corpus, EVERYTHING)
    for field in dataclasses.fields(Batch):
        torch.testing.assert_close(
            *(getattr(make(range(5), "a"), field.name) for make in (there, here)), rtol=0, atol=0
        )


@pytest.mark.gpu
def test_samples_on_the_host_give_the_batches_of_samples_on_the_gpu(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = torch.device("cuda")
    there = maker(corpus, EVERYTHING, gpu)
    monkeypatch.setattr("training.data.MAX_GPU_SHARE", 0.0)
    here = maker(corpus, EVERYTHING, gpu)
    assert there._samples.is_cuda and not here._samples.is_cuda
    for seed in "abc":
        one, other = there(range(5), seed), here(range(5), seed)
        for field in dataclasses.fields(Batch):
            torch.testing.assert_close(getattr(one, field.name), getattr(other, field.name), rtol=0, atol=0)


def bad_corpus(folder: Path) -> Corpus:
    """The corpus, whose fourth recording has a NaN in it, whose fifth is text, and whose sixth is empty."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    good = rng.normal(0, 0.1, 16_000).astype(np.float32)
    nan = good.copy()
    nan[77] = np.nan

    class Damaged(Corpus):
        def __init__(self) -> None:
            super().__init__(folder)
            soundfile.write(folder / "3.wav", nan, 16_000, subtype="FLOAT")
            (folder / "4.wav").write_text("no audio at all")
            soundfile.write(folder / "5.wav", good[:0], 16_000)
            self.store = type(self.store).build(self.utterances, folder / "damaged", workers=1)
            self.examples, self.counts = make_examples(
                self.utterances, self.pieces, None, max_utterance_s=30.0, store=self.store
            )

    return Damaged()


def test_recordings_that_are_not_finite_unreadable_or_empty_are_left_out_counted_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = bad_corpus(tmp_path / "c")
    assert corpus.counts["no audio"] == 3
    assert [example.index for example in corpus.examples] == [0, 1, 2, 6, 7, 8, 9, 10, 11]
    printed = capsys.readouterr().out
    for name, reason in (("3.wav", "not finite"), ("4.wav", "cannot be read"), ("5.wav", "no samples")):
        assert any(name in line and reason in line for line in printed.splitlines())
    again = type(corpus.store).build(corpus.utterances, tmp_path / "c" / "damaged", workers=1)
    assert list(again.skipped) == [3, 4, 5]
    assert len(again[6]) > 0
    assert len(again[3]) == 0


def test_training_on_a_recording_without_samples_is_refused_with_its_name(tmp_path: Path) -> None:
    corpus = bad_corpus(tmp_path / "c")
    example = dataclasses.replace(corpus.examples[0], index=4)
    with pytest.raises(ValueError, match=r"4\.wav: no samples"):
        make_batch([example], corpus.store, corpus.front_end())


def test_a_text_with_figures_in_it_is_left_out_and_counted(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path)
    utterances = [dataclasses.replace(utterance, written=utterance.text) for utterance in corpus.utterances]
    utterances[2] = dataclasses.replace(utterances[2], written=f"In 1984, {utterances[2].text}")
    utterances[3] = dataclasses.replace(utterances[3], written=f"Café, {utterances[3].text}!")
    examples, counts = make_examples(utterances, corpus.pieces, None, max_utterance_s=30.0)
    assert counts["text not spelled out"] == 1
    assert {example.index for example in examples} == set(range(len(utterances))) - {2}


def test_an_utterance_is_as_long_as_its_samples_where_the_manifest_is_off_by_more_than_rounding(corpus: Corpus) -> None:
    def made(claimed: float, limit_s: float = 30.0) -> tuple[list[Example], dict[str, int]]:
        utterance = dataclasses.replace(corpus.utterances[0], duration_s=claimed)
        return make_examples([utterance], corpus.pieces, None, max_utterance_s=limit_s, store=corpus.store)

    for claimed, duration_s, off in ((0.8, 0.8, 0), (0.85, 0.85, 0), (0.6, 0.8, 1), (50.0, 0.8, 1)):
        (example,), counts = made(claimed)
        assert example.duration_s == duration_s
        assert counts["kept, but not as long as the manifest says"] == off
    assert made(0.01, limit_s=0.5)[1]["too long"] == 1


def test_word_pieces_are_too_fast_by_the_frames_of_the_model(corpus: Corpus) -> None:
    utterance = dataclasses.replace(corpus.utterances[2], duration_s=0.6)  # 15 frames of 40 ms, 7 of 80 ms
    tokens = corpus.pieces.encode(utterance.text)
    assert 7 < len(tokens) + sum(a == b for a, b in itertools.pairwise(tokens)) <= 15
    for subsampling, fast in ((4, 0), (8, 1)):
        _, counts = make_examples(
            [utterance], corpus.pieces, None, max_utterance_s=30.0, output_subsampling=subsampling
        )
        assert counts["kept, but too fast for word-piece CTC"] == fast


def test_statistics_are_of_the_utterances_that_are_learnt_from(corpus: Corpus) -> None:
    front_end = LogMel(FeatureConfig(n_mels=16))
    frames = front_end.whole(torch.from_numpy(corpus.store[3].astype(np.float32) / 32768.0))
    mean, deviation = cmvn(corpus.store, front_end, [3])
    torch.testing.assert_close(mean, frames.mean(dim=0))
    assert (frames.std(dim=0) < 2.0).any() and (deviation >= 2.0).all()
    alone = [cmvn(corpus.store, front_end, [index])[0] for index in (3, 5)]
    both, _ = cmvn(corpus.store, front_end, [3, 5])
    assert all(not torch.equal(both, mean) for mean in alone)
    with pytest.raises(ValueError, match="no utterance is left"):
        cmvn(corpus.store, front_end, [])


def test_what_is_shorter_than_any_word_is_left_out_and_counted(corpus: Corpus) -> None:
    short = dataclasses.replace(corpus.utterances[0], duration_s=0.03)
    examples, counts = make_examples([short], corpus.pieces, None, max_utterance_s=20.0)
    assert (len(examples), counts["shorter than 0.1 s"]) == (0, 1)


@pytest.mark.parametrize(
    ("augmentation", "share"), [({"warp_probability": 0.3}, 0.3), ({"freq_masks": 4}, 1.0), ({"time_masks": 4}, 1.0)]
)
def test_what_is_done_to_features_falls_on_its_share_of_the_rows(
    corpus: Corpus, augmentation: dict[str, float], share: float
) -> None:
    make = maker(corpus, dataclasses.replace(PLAIN, **augmentation))
    plain = make(range(6), augmented=False).features
    features = torch.cat([make(range(6), str(seed)).features - plain for seed in range(30)])
    changed = features.flatten(1).any(dim=1).float()
    assert float(changed.mean()) == pytest.approx(share, abs=0.1)


def test_babble_is_asked_for_others_than_the_speaker_of_its_row(corpus: Corpus) -> None:
    examples = [dataclasses.replace(example, speaker=f"s{example.index}") for example in corpus.examples]
    config = dataclasses.replace(PLAIN, noise_probability=1.0, babble_share=1.0)
    make, asked = BatchMaker(examples, corpus.store, corpus.front_end(), config, CPU), []
    make._distort._voices = lambda rng, speaker, count: asked.append(speaker) or make._voices(rng, speaker, count)
    make([4, 2, 7], "seed")
    assert asked == ["s4", "s2", "s7"]
