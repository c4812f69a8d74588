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

    def select(self, index: Tensor) -> PrefixState:
        return PrefixState(self.non_blank[index], self.blank[index], self.last[index])

    @property
    def complete(self) -> Tensor:
        """(N,) log-probability that the prefix is the whole labelling."""
        return torch.logaddexp(self.non_blank[:, -1], self.blank[:, -1])


class CTCPrefixScorer:
    """Prefix scores over one utterance's log-probabilities, (T, V)."""

    def __init__(self, log_probs: Tensor, *, blank_id: int = 0) -> None:
        self._log_probs = log_probs.double()
        zero = self._log_probs.new_zeros(1, log_probs.shape[1])
        self._total = torch.cat([zero, self._log_probs.cumsum(dim=0)])  # (T + 1, V), log of the running product X
        self._blank_id = blank_id

    def start(self) -> PrefixState:
        """The empty prefix, N = 1."""
        blank = self._total[:, self._blank_id].unsqueeze(0)
        return PrefixState(torch.full_like(blank, IMPOSSIBLE), blank, torch.tensor([-1], device=blank.device))

    def extend(self, state: PrefixState, candidates: Tensor) -> tuple[Tensor, PrefixState]:
        """Score every prefix with each of its candidates, (N, K) token ids.

        Returns:
            scores: (N, K) log-probability of all labellings that start with the extended prefix.
            extended: the N·K extended prefixes, row n·K + k.
        """
        n, k = candidates.shape
        either = torch.logaddexp(state.non_blank, state.blank)
        repeats = (candidates == state.last.unsqueeze(1)).unsqueeze(-1)
        phi = torch.where(repeats, state.blank.unsqueeze(1), either.unsqueeze(1))[..., :-1]  # (N, K, T)
        emitted = self._log_probs.t()[candidates]  # (N, K, T)
        scores = torch.logsumexp(phi + emitted, dim=-1)
        non_blank = self._recur(phi, self._total.t()[candidates])
        blank = self._recur(non_blank[..., :-1], self._total[:, self._blank_id])
        flat = PrefixState(non_blank.flatten(0, 1), blank.flatten(0, 1), candidates.flatten())
        assert flat.non_blank.shape[0] == n * k
        return scores, flat

    @staticmethod
    def _recur(phi: Tensor, total: Tensor) -> Tensor:
        """r[t] = x[t]·(r[t-1] + φ[t-1]) with r[0] = 0: φ (…, T), log X (…, T + 1) → log r (…, T + 1)."""
        summed = torch.logcumsumexp(phi - total[..., :-1], dim=-1)
        result = summed + total[..., 1:]
        return torch.cat([torch.full_like(result[..., :1], IMPOSSIBLE), result], dim=-1)
