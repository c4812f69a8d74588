"""Joint CTC/attention beam search (Watanabe et al. 2017, section II-C): one token at a time, all rows in one step.

Dimensions: S encoder frames, D model, N beam rows, U tokens of each, K candidates a row, V word pieces.

The decoder says what comes next, the CTC whether the audio bears it out. CTC also bounds the length, so nothing loops:
a hypothesis is at most `max_token_ratio` times as long as the greedy CTC's, plus `max_extra_tokens`. A lexicon's words
may go before other spellings (`Spelling`). Words that were shown already can be given: all hypotheses start with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from asr_service.decoding.ctc_prefix_score import CTCPrefixScorer, PrefixState
from asr_service.decoding.hinted_pieces import HintedPieces
from asr_service.decoding.spelling import Spelling
from asr_service.model.decoder import Decoder
from asr_service.parts import Parts


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

    def __post_init__(self) -> None:
        if min(self.beam_size, self.candidates) < 1 or not 0.0 <= self.ctc_weight <= 1.0:
            raise ValueError("beam_size and candidates must be at least 1, ctc_weight 0 to 1")
        if min(self.length_reward, self.max_token_ratio, self.max_extra_tokens) < 0:
            raise ValueError("length_reward, max_token_ratio and max_extra_tokens must be 0 or more")


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


class _TextScorer(Protocol):
    """What the text of a hypothesis is worth, piece by piece: `Spelling`, `HintedPieces`. A place has a `score`."""

    def start(self) -> Any: ...
    def extended(self, before: Any, token_id: int) -> Any: ...
    def ended(self, place: Any) -> float: ...


@dataclass(slots=True)
class _Beam:
    """N rows of U tokens each.

    Attributes:
        tokens: (N, U).
        attention: (N,) log-probabilities under the decoder.
        prefixes: what the CTC knows of them.
        places: of each scorer of texts, of each row.
    """

    tokens: Tensor
    attention: Tensor
    prefixes: PrefixState
    scorers: Sequence[_TextScorer]
    places: list[list[Any]]

    @classmethod
    def start(cls, prefixes: PrefixState, scorers: Sequence[_TextScorer]) -> _Beam:
        """One row of no tokens."""
        tokens, attention = torch.zeros((1, 0), dtype=torch.long), torch.zeros(1, dtype=torch.float64)
        return cls(tokens, attention, prefixes, scorers, [[scorer.start()] for scorer in scorers])

    def finished(self, end_log_probs: Tensor, options: JointBeamOptions) -> list[TokenHypothesis]:
        """The rows as they are, with the log-probabilities (N,) that they end here."""
        weight = options.ctc_weight
        scores = (1 - weight) * (self.attention + end_log_probs) + weight * self.prefixes.complete
        for scorer, places in zip(self.scorers, self.places, strict=True):
            scores += torch.tensor([scorer.ended(place) for place in places], dtype=scores.dtype)
        reward = options.length_reward * self.tokens.shape[1]
        return [
            TokenHypothesis(tuple(row), score + reward)
            for row, score in zip(self.tokens.tolist(), scores.tolist(), strict=True)
        ]

    def grown(self, log_probs: Tensor, ctc: CTCPrefixScorer, options: JointBeamOptions) -> tuple[_Beam, Tensor, float]:
        """The best rows that are one token longer, which row each continues (N,), and the score of the first.

        `log_probs`: (N, V) of the next token under the decoder, -inf for those that cannot come, the same in each row.
        """
        possible = int(torch.isfinite(log_probs[0]).sum())
        best, candidates = log_probs.topk(min(options.candidates, possible), dim=-1)
        by_attention = self.attention.unsqueeze(1) + best
        scores = (1 - options.ctc_weight) * by_attention + options.ctc_weight * ctc.scores(self.prefixes, candidates)
        reached = [
            [
                scorer.extended(place, token_id)
                for place, token_ids in zip(places, candidates.tolist(), strict=True)
                for token_id in token_ids
            ]
            for scorer, places in zip(self.scorers, self.places, strict=True)
        ]
        for places in reached:
            scores += torch.tensor([place.score for place in places], dtype=scores.dtype).view_as(scores)
        score, index = scores.flatten().topk(min(options.beam_size, scores.numel()))
        rows = index // candidates.shape[1]
        beam = self._with(
            rows,
            candidates.flatten()[index],
            by_attention.flatten()[index],
            [[places[chosen] for chosen in index.tolist()] for places in reached],
            ctc,
        )
        return beam, rows, float(score[0])

    def followed_by(self, token_id: int, log_probs: Tensor, ctc: CTCPrefixScorer) -> _Beam:
        """Each row with this token, whatever it scores; `log_probs` as in `grown`."""
        rows = torch.arange(len(self.tokens))
        reached = [
            [scorer.extended(place, token_id) for place in places]
            for scorer, places in zip(self.scorers, self.places, strict=True)
        ]
        tokens = torch.full_like(rows, token_id)
        return self._with(rows, tokens, self.attention + log_probs[:, token_id], reached, ctc)

    def _with(
        self, rows: Tensor, tokens: Tensor, attention: Tensor, places: list[list[Any]], ctc: CTCPrefixScorer
    ) -> _Beam:
        """Rows `rows` (M,), each with one of `tokens` (M,); `attention` (M,) and `places` are theirs already."""
        longer = torch.cat([self.tokens[rows], tokens.unsqueeze(1)], dim=1)
        return _Beam(longer, attention, ctc.extended(self.prefixes, rows, tokens), self.scorers, places)


@torch.inference_mode()
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
    prefix: Sequence[int] = (),
    after_prefix: Tensor | None = None,
) -> Parts[list[TokenHypothesis]]:
    """Search one utterance: `encoder_out` (S, D) and CTC log-probabilities (S, V) → finished hypotheses, best first.

    `spelling`: what a lexicon says of the words, `hints`: what the stream expects; both add to the joint score.
    `prefix`: tokens that every hypothesis starts with, however unlikely; `after_prefix`: (V,), true for those that may
    follow right after them.

    Deterministic; one token of every row between two yields. An utterance of no frames has the empty hypothesis only.
    """
    if memory.shape[0] == 0:
        return [TokenHypothesis((), 0.0)]
    longest = max(max_tokens(ctc_log_probs, options), len(prefix))
    ctc = CTCPrefixScorer(ctc_log_probs)
    beam = _Beam.start(ctc.start(), [scorer for scorer in (spelling, hints) if scorer is not None])
    cache = decoder.start(memory.unsqueeze(0), capacity=longest + 1)
    last = torch.tensor([bos_id])
    finished: list[TokenHypothesis] = []
    for token_id in prefix:
        beam = beam.followed_by(token_id, decoder.step(last, cache).double(), ctc)
        last = beam.tokens[:, -1]
        yield
    for length in range(len(prefix), longest + 1):
        log_probs = decoder.step(last, cache).double()
        finished += beam.finished(log_probs[:, eos_id], options)
        finished = sorted(finished, key=lambda hypothesis: -hypothesis.score)[: options.beam_size]
        if length == longest:
            break
        log_probs[:, [0, bos_id, eos_id]] = -torch.inf
        if prefix and length == len(prefix) and after_prefix is not None:
            log_probs[:, ~after_prefix] = -torch.inf
        beam, rows, best_score = beam.grown(log_probs, ctc, options)
        last = beam.tokens[:, -1]
        cache.reorder(rows)
        # Scores only fall from here (but for the reward), so once the worst finished one is out of reach, stop. With
        # hints they may rise again.
        reachable = best_score + options.length_reward * longest
        if hints is None and len(finished) == options.beam_size and reachable < finished[-1].score:
            break
        yield
    return finished
