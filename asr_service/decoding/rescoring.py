"""One ranking for hypotheses of any search: a log-linear sum of what every part of the model says of them.

Dimensions: N hypotheses, U tokens, S encoder frames (80 ms), D model, V word pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from asr_service.decoding.ctc_forward import LEAST, ctc_probabilities, padded_labels

# A hypothesis with more labels than frames has no alignment to them: as bad as can be, yet finite.
NO_ALIGNMENT = -1e4


@dataclass(frozen=True, slots=True)
class RescoringWeights:
    """Weights of the sum; tuned on dev by `training.tune_decoding` and kept in the bundle's config.

    Attributes:
        phones: log-likelihood of the hypothesis' phones under the phone CTC.
        pieces: the same for its word pieces under the word-piece CTC.
        attention: log-likelihood under the decoder, end token included.
        internal_lm: the same under the decoder that hears nothing. Below zero, it takes back what the decoder has
            learnt of the language of its few transcripts, which the language models know better (Meng et al. 2021).
        language_model: log-probability under the n-gram (natural, as all of them).
        neural_lm: the same under the bundle's neural language model, where it has one, end token included.
        unigram: log-probability of its words under the n-gram, each without context. Below zero, it takes back part of
            what two language models together give to frequent words.
        word: added per word.
        unknown: added for a word that the lexicon lacks, spelled by the word-piece CTC.
    """

    phones: float = 1.0
    pieces: float = 0.5
    attention: float = 0.5
    internal_lm: float = 0.0
    language_model: float = 1.5
    neural_lm: float = 0.0
    unigram: float = 0.0
    word: float = 0.0
    unknown: float = -16.0


def ctc_log_likelihoods(log_probs: Tensor, sequences: Sequence[Sequence[int]]) -> Tensor:
    """Exact CTC log-likelihoods (N,) of N label sequences under one utterance's log-probabilities (T, V).

    A sequence that needs more frames than there are gets -inf.
    """
    if log_probs.shape[0] == 0:
        return torch.tensor([0.0 if not row else -torch.inf for row in sequences])
    labels, lengths = padded_labels(sequences)
    found = torch.from_numpy(ctc_probabilities(log_probs.double().exp().numpy(), labels, lengths)).log()
    small = found < LEAST
    if bool(small.any()):
        rows = small.numpy()
        targets, target_lengths = torch.from_numpy(labels[rows]), torch.from_numpy(lengths[rows])
        frames = torch.full((len(targets),), log_probs.shape[0])
        repeated = log_probs.unsqueeze(1).expand(-1, len(targets), -1)
        loss = F.ctc_loss(repeated, targets, frames, target_lengths, blank=0, reduction="none")
        found[small] = -loss.double()
    return found.float()
