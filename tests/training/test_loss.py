"""Losses against sums written out, and targets that cannot be aligned."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch

from asr_service.model.transformer import Transformer
from tests.training.conftest import MODEL, Corpus
from training.ctc import ctc_losses
from training.data import Utterance
from training.dataset import make_batch, make_examples, pad_targets
from training.loss import attention_loss, consistency_loss, losses, target_counts
from training.mmi import mmi_losses, phone_trigram
from training.recipe import AugmentConfig, LossConfig


def test_two_views_are_pulled_towards_each_other_as_each_is() -> None:
    logits = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(0), requires_grad=True)
    lengths = torch.tensor([5, 3, 5, 3])
    loss = consistency_loss(torch.log_softmax(logits, dim=-1), lengths)
    loss.backward()
    probs = torch.softmax(logits.detach(), dim=-1)
    expected, gradient = 0.0, torch.zeros_like(probs)
    for row, length in enumerate(lengths.tolist()):
        other = probs[(row + 2) % 4, :length]
        expected += float((other * (other.log() - probs[row, :length].log())).sum())
        gradient[row, :length] = probs[row, :length] - other  # of a cross-entropy: the other view is held fixed
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(logits.grad, gradient, atol=1e-5, rtol=1e-4)
    same = torch.cat([logits[:2], logits[:2]])
    assert consistency_loss(torch.log_softmax(same, dim=-1), lengths).item() == pytest.approx(0.0, abs=1e-5)


def test_the_objective_adds_the_distance_of_views_where_there_are_two(corpus: Corpus) -> None:
    torch.manual_seed(0)
    model = Transformer(dataclasses.replace(MODEL, phone_vocab_size=40, phone_layer=1)).eval()
    augment = AugmentConfig(views=2, speeds=(1.0,), noise_probability=1.0)
    batch = make_batch(corpus.examples[:3], corpus.store, corpus.front_end(), augment=augment, seed="1")
    plain = LossConfig()
    with torch.no_grad():
        alone = losses(model, batch, plain, None)
        paired = losses(model, batch, dataclasses.replace(plain, consistency=0.5), None)
    assert set(paired) - set(alone) == {"phone_consistency", "piece_consistency"}
    added = 0.5 * (paired["phone_consistency"] + paired["piece_consistency"])
    assert float(paired["total"]) == pytest.approx(float(alone["total"] + added), rel=1e-5)
    assert float(added) > 0


def test_the_attention_loss_is_smoothed_cross_entropy_with_begin_and_end(corpus: Corpus) -> None:
    torch.manual_seed(0)
    model = Transformer(MODEL).eval()
    batch = make_batch(corpus.examples[:3], corpus.store, corpus.front_end())
    with torch.no_grad():
        output = model.encode(batch.features, batch.lengths)
        loss = float(attention_loss(model, batch, output, smoothing=0.1))
        terms = []
        for row in range(3):
            tokens = batch.tokens[row, : batch.token_lengths[row]].tolist()
            alone = model.encode(batch.features[row : row + 1, : batch.lengths[row]], batch.lengths[row : row + 1])
            logits = model.decoder_logits(torch.tensor([[1, *tokens]]), alone)
            log_probs = torch.log_softmax(logits[0], dim=-1)
            for step, target in enumerate([*tokens, 2]):
                terms.append(0.9 * -log_probs[step, target] + 0.1 * -log_probs[step].mean())
    assert loss == pytest.approx(float(torch.stack(terms).sum()), abs=1e-3)


def test_the_total_is_the_weighted_sum_of_the_parts(corpus: Corpus) -> None:
    torch.manual_seed(0)
    config = LossConfig(ctc=0.4, attention=0.5)
    batch = make_batch(corpus.examples[:2], corpus.store, corpus.front_end())
    with torch.no_grad():
        parts = losses(Transformer(MODEL).eval(), batch, config, None)
    assert set(parts) == {"ctc", "attention", "total"}
    assert float(parts["total"]) == pytest.approx(0.4 * float(parts["ctc"]) + 0.5 * float(parts["attention"]), rel=1e-5)


def test_with_a_trigram_the_phones_are_trained_against_all_others_too(corpus: Corpus) -> None:
    torch.manual_seed(0)
    model = Transformer(dataclasses.replace(MODEL, phone_vocab_size=40, phone_layer=1)).eval()
    batch = make_batch(corpus.examples[:2], corpus.store, corpus.front_end())
    batch.phones, batch.phone_lengths = pad_targets([(3, 4, 5), (6, 7)])
    trigram = phone_trigram([(3, 4, 5), (6, 7)], 40)
    with torch.no_grad():
        plain = losses(model, batch, LossConfig(), None)
        parts = losses(model, batch, LossConfig(phone_mmi=0.7), None, trigram=trigram)
        output = model.encode(batch.features, batch.lengths)
        logits = model.phone_logits(output)
        assert logits is not None
        phones = (torch.log_softmax(logits, dim=-1), output.phone_lengths, batch.phones, batch.phone_lengths)
        expected = mmi_losses(*phones, trigram, ctc_losses(*phones)).sum() / 5
    assert set(parts) - set(plain) == {"phone_mmi"}
    assert float(parts["phone_mmi"]) == pytest.approx(float(expected), rel=1e-5)
    assert float(parts["total"]) == pytest.approx(float(plain["total"]) + 0.7 * float(expected), rel=1e-5)


def test_shares_of_an_update_divided_by_its_target_tokens_add_up_to_its_loss(corpus: Corpus) -> None:
    torch.manual_seed(0)
    model = Transformer(MODEL).eval()
    whole, *shares = (
        make_batch(chosen, corpus.store, corpus.front_end())
        for chosen in (corpus.examples[:6], corpus.examples[:1], corpus.examples[1:6])
    )
    with torch.no_grad():
        together = losses(model, whole, LossConfig(), None)
        apart = [losses(model, share, LossConfig(), None, target_counts(whole)) for share in shares]
    for name, value in together.items():
        assert float(value) == pytest.approx(sum(float(parts[name]) for parts in apart), abs=1e-4)


def test_target_counts_are_what_the_losses_are_divided_by(corpus: Corpus) -> None:
    batch = make_batch(corpus.examples[:3], corpus.store, corpus.front_end())
    tokens = sum(len(example.tokens) for example in corpus.examples[:3])
    phones = dict.fromkeys(("lower_phone_ctc", "phone_ctc", "phone_mmi", "phone_consistency"), 0)
    pieces = {"ctc": tokens, "piece_consistency": tokens, "attention": tokens + 3}
    assert target_counts(batch) == phones | pieces


def test_a_batch_is_a_function_of_its_arguments(corpus: Corpus) -> None:
    from training.recipe import AugmentConfig

    def batch(seed: str) -> torch.Tensor:
        return make_batch(
            corpus.examples[:3], corpus.store, corpus.front_end(), augment=AugmentConfig(), seed=seed
        ).features

    assert torch.equal(batch("1/0/0"), batch("1/0/0"))
    assert batch("1/0/0").shape != batch("1/0/1").shape or not torch.equal(batch("1/0/0"), batch("1/0/1"))


def test_unusable_utterances_are_left_out_and_counted_by_reason(corpus: Corpus) -> None:
    path = corpus.utterances[0].path
    utterances = [
        Utterance(path, 2.0, "the sea", "", ""),
        Utterance(path, 2.0, "", "", ""),
        Utterance(path, 99.0, "the sea", "", ""),
        Utterance(path, 0.1, "she sells shells by the sea shore", "", ""),
    ]
    examples, counts = make_examples(utterances, corpus.pieces, None, max_utterance_s=30.0)
    assert [example.index for example in examples] == [0, 3]
    assert counts["empty text"] == counts["too long"] == counts["kept, but too fast for word-piece CTC"] == 1


def test_views_are_compared_in_their_own_frames_and_only_where_there_are_two(corpus: Corpus) -> None:
    torch.manual_seed(0)
    model = Transformer(dataclasses.replace(MODEL, phone_vocab_size=40, phone_layer=1)).eval()
    config = LossConfig(consistency=0.5)
    augment = AugmentConfig(views=2, speeds=(1.0,), noise_probability=1.0)
    batch = make_batch(corpus.examples[:6], corpus.store, corpus.front_end(), augment=augment, seed="1")
    with torch.no_grad():
        parts = losses(model, batch, config, None)
        output = model.encode(batch.features, batch.lengths)
        own = torch.log_softmax(model.ctc_logits(output), dim=-1)
        pieces = consistency_loss(own, output.lengths) / batch.token_lengths.sum()
        assert not {
            name for name in losses(model, dataclasses.replace(batch, views=1), config, None) if "consist" in name
        }
    assert float(parts["piece_consistency"]) == pytest.approx(float(pieces), rel=1e-5)


def test_each_part_has_the_weight_of_its_own_name(corpus: Corpus) -> None:
    torch.manual_seed(0)
    model = Transformer(dataclasses.replace(MODEL, phone_vocab_size=40, phone_layer=1)).eval()
    batch = make_batch(corpus.examples[:2], corpus.store, corpus.front_end())
    batch.phones, batch.phone_lengths = pad_targets([(3, 4, 5), (6, 7)])
    weights = {"lower_phone_ctc": 0.11, "phone_ctc": 0.23, "ctc": 0.31, "attention": 0.47}
    with torch.no_grad():
        parts = losses(model, batch, LossConfig(**weights), None)
    expected = sum(weight * float(parts[name]) for name, weight in weights.items())
    assert float(parts["total"]) == pytest.approx(expected, rel=1e-5)


def test_a_token_twice_in_a_row_needs_a_frame_in_between(corpus: Corpus) -> None:
    tokens = corpus.pieces.encode("zzzzz")
    repeats = sum(one == other for one, other in itertools.pairwise(tokens))
    assert repeats
    for frames, fast in ((len(tokens) + repeats, 0), (len(tokens) + repeats - 1, 1)):
        utterance = Utterance(corpus.utterances[0].path, frames * 0.08 + 0.01, "zzzzz", "", "")
        _, counts = make_examples([utterance], corpus.pieces, None, max_utterance_s=30.0)
        assert counts["kept, but too fast for word-piece CTC"] == fast
