"""Joint CTC/attention beam search (Watanabe et al. 2017, section II-C): one token at a time, all rows in one step.

Dimensions: S encoder frames, D model, N beam rows, K candidates a row, V word pieces.

The decoder says what comes next, the CTC whether the audio bears it out. CTC also bounds the length, so nothing loops:
a hypothesis is at most `max_token_ratio` times as long as the greedy CTC's, plus `max_extra_tokens`. A lexicon's words
may go before other spellings (`Spelling`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from asr_service.decoding.ctc_prefix_score import CTCPrefixScorer
from asr_service.decoding.hinted_pieces import HintedPieces
from asr_service.decoding.spelling import Spelling
from asr_service.model.decoder import Decoder


@dataclass(frozen=True, slots=True)
class JointBeamOptions:
    """Search settings.

    Attributes:
        beam_size: hypotheses kept after each token.
        candidates: tokens of each that the CTC scores: the decoder's best.
        ctc_weight: share of the CTC in the score, the rest is the decoder's.
        length_reward: added per token, against the preference for short hypotheses.
        unknown: added for a word that the lexicon lacks, where there is a lexicon.
        phones: weight of the phone CTC in the ranking of the finished hypotheses, where there is one and a lexicon.
    """

    beam_size: int = 8
    candidates: int = 24
    ctc_weight: float = 0.5
    length_reward: float = 0.0
    unknown: float = -4.0
    phones: float = 0.3
    max_token_ratio: float = 1.2
    max_extra_tokens: int = 5


@dataclass(frozen=True, slots=True)
class TokenHypothesis:
    """A finished hypothesis: its tokens, without begin and end, and its joint score."""

    token_ids: tuple[int, ...]
    score: float


def max_tokens(ctc_log_probs: Tensor, options: JointBeamOptions, *, blank_id: int = 0) -> int:
    """The longest hypothesis the CTC's log-probabilities (S, V) allow."""
    best = ctc_log_probs.argmax(dim=-1)
    changes = torch.ones_like(best, dtype=torch.bool)
    changes[1:] = best[1:] != best[:-1]
    greedy = int(((best != blank_id) & changes).sum())
    return min(len(best), int(options.max_token_ratio * greedy) + options.max_extra_tokens)


def joint_beam_search(
    decoder: Decoder,
    memory: Tensor,
    ctc_log_probs: Tensor,
    *,
    bos_id: int,
    eos_id: int,
    options: JointBeamOptions,
    spelling: Spelling | None = None,
    hints: HintedPieces | None = None,
) -> list[TokenHypothesis]:
    """Search one utterance: `encoder_out` (S, D) and CTC log-probabilities (S, V) → finished hypotheses, best first.

    `spelling`: what a lexicon says of the words, `hints`: what the stream expects; both add to the joint score.

    Deterministic. An utterance of no frames has the empty hypothesis only.
    """
    if memory.shape[0] == 0:
        return [TokenHypothesis((), 0.0)]
    longest = max_tokens(ctc_log_probs, options)
    scorer = CTCPrefixScorer(ctc_log_probs)
    state = scorer.start()
    cache = decoder.start(memory.unsqueeze(0), capacity=longest + 1)
    weight = options.ctc_weight
    tokens = torch.full((1, 0), 0, dtype=torch.long)
    attention = torch.zeros(1, dtype=torch.float64)
    last = torch.tensor([bos_id])
    scorers: list[Any] = [scorer for scorer in (spelling, hints) if scorer is not None]
    places = [[scorer.start()] for scorer in scorers]  # of each scorer, of each row
    finished: list[TokenHypothesis] = []
    for length in range(longest + 1):
        log_probs = decoder.step(last, cache).double()
        ends = (1 - weight) * (attention + log_probs[:, eos_id]) + weight * state.complete
        for by_text, at in zip(scorers, places, strict=True):
            ends += torch.tensor([by_text.ended(place) for place in at], dtype=ends.dtype)
        finished += [
            TokenHypothesis(tuple(row), score + options.length_reward * length)
            for row, score in zip(tokens.tolist(), ends.tolist(), strict=True)
        ]
        finished = sorted(finished, key=lambda hypothesis: -hypothesis.score)[: options.beam_size]
        if length == longest:
            break
        log_probs[:, [0, bos_id, eos_id]] = -torch.inf
        best, candidates = log_probs.topk(min(options.candidates, log_probs.shape[1] - 3), dim=-1)
        prefix_scores, extended = scorer.extend(state, candidates)
        attention_scores = attention.unsqueeze(1) + best
        joint = (1 - weight) * attention_scores + weight * prefix_scores
        extensions = [
            [
                by_text.extended(place, token_id)
                for place, token_ids in zip(at, candidates.tolist(), strict=True)
                for token_id in token_ids
            ]
            for by_text, at in zip(scorers, places, strict=True)
        ]
        for reached in extensions:
            joint += torch.tensor([place.score for place in reached], dtype=joint.dtype).view_as(joint)
        score, index = joint.flatten().topk(min(options.beam_size, joint.numel()))
        places = [[reached[chosen] for chosen in index.tolist()] for reached in extensions]
        row = index // candidates.shape[1]
        last = candidates.flatten()[index]
        tokens = torch.cat([tokens[row], last.unsqueeze(1)], dim=1)
        attention = attention_scores.flatten()[index]
        state = extended.select(index)
        cache.reorder(row)
        # Scores only fall from here (but for the reward), so once the worst finished one is out of reach, stop. With
        # hints they may rise again.
        reachable = float(score[0]) + options.length_reward * longest
        if hints is None and len(finished) == options.beam_size and reachable < finished[-1].score:
            break
    return finished
