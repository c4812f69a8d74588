"""CTC prefix scores for label-synchronous search (Hori, Watanabe and Hershey 2017, algorithm 2).

Dimensions: N hypotheses, K candidate tokens of each, T frames, V vocabulary.

For a prefix g, r_n[t] and r_b[t] are the log-probabilities of all alignments of the first t frames to g that end in its
last token and in blank; t = 0 is before the first frame. The score of g·c is the log-probability of every labelling
that starts with it: log Σ_t φ[t-1]·x[t, c], where φ is r_b ⊕ r_n, without r_n where c repeats g's last token.

The recursions over t are linear in the probabilities, r[t] = x[t]·(r[t-1] + φ[t-1]), so all frames come out of one
cumulative log-sum instead of a loop: r[t] = X[t] · Σ_{s≤t} φ[s-1]/X[s-1], with X the running product of x. In float64,
for X spans hundreds of nepers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

IMPOSSIBLE = -1e30  # instead of -inf: differences of it stay finite


@dataclass(slots=True)
class PrefixState:
    """Forward variables of N prefixes: `non_blank`, `blank` (N, T + 1), and their last tokens (N,), -1 for none."""

    non_blank: Tensor
    blank: Tensor
    last: Tensor

    @property
    def complete(self) -> Tensor:
        """(N,) log-probability that the prefix is the whole labelling."""
        return torch.logaddexp(self.non_blank[:, -1], self.blank[:, -1])


class CTCPrefixScorer:
    """Prefix scores over one utterance's log-probabilities, (T, V)."""

    def __init__(self, log_probs: Tensor, *, blank_id: int = 0) -> None:
        by_token = log_probs.double().t().contiguous()
        self._log_probs = by_token  # (V, T)
        zero = by_token.new_zeros(len(by_token), 1)
        self._total = torch.cat([zero, by_token.cumsum(dim=1)], dim=1)  # (V, T + 1), log of the running product X
        self._blank_id = blank_id

    def start(self) -> PrefixState:
        """The empty prefix, N = 1."""
        blank = self._total[self._blank_id].unsqueeze(0)
        return PrefixState(torch.full_like(blank, IMPOSSIBLE), blank, torch.tensor([-1], device=blank.device))

    def scores(self, state: PrefixState, candidates: Tensor) -> Tensor:
        """(N, K) log-probabilities of all labellings that start with a prefix and one of its candidates, (N, K) token
        ids.
        """
        either = torch.logaddexp(state.non_blank, state.blank)[:, :-1]
        repeats = (candidates == state.last.unsqueeze(1)).unsqueeze(-1)
        phi = torch.where(repeats, state.blank[:, :-1].unsqueeze(1), either.unsqueeze(1))  # (N, K, T)
        return torch.logsumexp(phi + self._log_probs[candidates], dim=-1)

    def extended(self, state: PrefixState, rows: Tensor, tokens: Tensor) -> PrefixState:
        """M prefixes, each of them that in row `rows` (M,) of `state` and one of `tokens` (M,)."""
        before, blank = state.non_blank[rows, :-1], state.blank[rows, :-1]
        repeats = (tokens == state.last[rows]).unsqueeze(-1)
        phi = torch.where(repeats, blank, torch.logaddexp(before, blank))
        non_blank = self._recur(phi, self._total[tokens])
        return PrefixState(non_blank, self._recur(non_blank[:, :-1], self._total[self._blank_id]), tokens)

    @staticmethod
    def _recur(phi: Tensor, total: Tensor) -> Tensor:
        """r[t] = x[t]·(r[t-1] + φ[t-1]) with r[0] = 0: φ (M, T), log X (M, T + 1) or (T + 1,) → log r (M, T + 1)."""
        summed = torch.logcumsumexp(phi - total[..., :-1], dim=-1)
        result = summed + total[..., 1:]
        return torch.cat([torch.full_like(result[..., :1], IMPOSSIBLE), result], dim=-1)
