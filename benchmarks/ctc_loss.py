"""CTC's loss and gradient, ours against torch's, in turns; on a batch of the shipped model, 10 utterances of some 15 s.

    python -m benchmarks.ctc_loss --threads 1

Phones at 25 Hz and word pieces at 12.5 Hz, early in training, where every label is as likely as any, and late, where
the right one mostly is. Milliseconds of the processor's clock, with the softmax before the loss.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from asr_service.model.config import preset
from benchmarks.plain_loop import PlainLoop
from training.ctc import ctc_losses

ROWS, LONGEST_S, PHONES_PER_S, PIECES_PER_S = 10, 15.5, 9.0, 4.0
Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def batch(labels: int, rate_hz: float, labels_per_s: float, *, late: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits (B, T, V) in which each target stands out for a frame, late, with lengths, targets and their lengths."""
    generator = torch.Generator().manual_seed(0)
    seconds = LONGEST_S * (0.85 + 0.15 * torch.rand(ROWS, generator=generator))
    lengths, target_lengths = (seconds * rate_hz).long(), (seconds * labels_per_s).long()
    targets = torch.randint(1, labels, (ROWS, int(target_lengths.max())), generator=generator)
    logits = torch.randn(ROWS, int(lengths.max()), labels, generator=generator)
    if late:
        logits[..., 0] += 6.0
        for row, (frames, count) in enumerate(zip(lengths.tolist(), target_lengths.tolist(), strict=True)):
            spoken = torch.arange(count) * frames // count
            logits[row, spoken, targets[row, :count]] += 9.0
    return logits.requires_grad_(), lengths, targets, target_lengths


def cpu_ms(loss: Loss, logits: Tensor, *targets: Tensor) -> float:
    begun = time.process_time()
    loss(torch.log_softmax(logits, dim=-1), *targets).sum().backward()
    return 1e3 * (time.process_time() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    config = preset("streaming-s")
    kinds = {"phones": (config.phone_vocab_size, 25.0, PHONES_PER_S), "pieces": (config.vocab_size, 12.5, PIECES_PER_S)}
    for kind, (labels, rate_hz, labels_per_s) in kinds.items():
        for late in (False, True):
            made = batch(labels, rate_hz, labels_per_s, late=late)
            taken: dict[str, list[float]] = {"torch": [], "ours": []}
            for round_ in range(-1, arguments.rounds):  # the first is untimed: kernels are made
                for name, loss in (("torch", PlainLoop.ctc), ("ours", ctc_losses)):
                    spent = cpu_ms(loss, *made)
                    taken[name] += [spent] if round_ >= 0 else []
            theirs, own = (statistics.median(values) for values in taken.values())
            when = "late" if late else "early"
            print(f"{kind}, {when}: torch {theirs:.1f} ms, ours {own:.1f} ms, {theirs / own:.1f} to 1", flush=True)


if __name__ == "__main__":
    main()
