"""Schedule and parameter groups."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

from asr_service.model.config import PRESETS
from asr_service.model.transformer import Transformer
from training.distributed import ALONE, Processes
from training.muon import Muon, orthogonalised
from training.optim import learning_rate_factor, make_optimizers
from training.recipe import OptimConfig

SCHEDULE = OptimConfig(warmup_steps=10, max_steps=100, decay_fraction=0.3)


@pytest.mark.parametrize(
    ("step", "factor"), [(0, 0.1), (4, 0.5), (9, 1.0), (50, 1.0), (70, 1.0), (85, 0.5), (99, 1 / 30), (100, 0.0)]
)
def test_the_learning_rate_warms_up_stays_and_falls_to_zero(step: int, factor: float) -> None:
    assert learning_rate_factor(step, SCHEDULE) == pytest.approx(factor)


def test_the_learning_rate_is_never_negative_nor_above_its_peak() -> None:
    factors = [learning_rate_factor(step, SCHEDULE) for step in range(130)]
    assert min(factors) >= 0
    assert max(factors) == 1


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_every_parameter_is_optimised_exactly_once(optimizer: str) -> None:
    model = Transformer(PRESETS["streaming-s"])
    optimizers = make_optimizers(model, OptimConfig(optimizer=optimizer))
    held = [id(p) for opt in optimizers for group in opt.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in model.parameters())


def test_muon_has_the_matrices_inside_and_vectors_do_not_decay() -> None:
    model = Transformer(PRESETS["streaming-s"])
    adamw, muon = make_optimizers(model, OptimConfig())
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    inside = {names[id(p)] for group in muon.param_groups for p in group["params"]}
    assert "encoder.blocks.0.ffn.linear1.weight" in inside
    assert not {name for name in inside if "embedding" in name or "head" in name or "stem" in name}
    for group in adamw.param_groups:
        assert (group["weight_decay"] == 0) == all(p.dim() < 2 for p in group["params"])


def test_muon_of_matrices_together_is_that_of_torch_one_by_one_and_reads_its_state() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(16, 16), (32, 16), (16, 48), (16, 16), (32, 16)]
    ours, theirs = ([torch.nn.Parameter(torch.full(shape, 0.1)) for shape in shapes] for _ in range(2))
    settings = {"lr": 0.01, "weight_decay": 0.1}
    muon = Muon(ours, **settings)
    reference = torch.optim.Muon(theirs, **settings, adjust_lr_fn="match_rms_adamw")
    for step in range(4):
        for mine, other in zip(ours, theirs, strict=True):
            mine.grad = torch.randn(mine.shape, generator=generator)
            other.grad = mine.grad.clone()
        muon.step()
        reference.step()
        for mine, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine, other, rtol=0, atol=1e-4)
        if step == 1:
            muon.load_state_dict(copy.deepcopy(reference.state_dict()))


@dataclasses.dataclass(frozen=True, slots=True)
class OneOfThree(Processes):
    """The three come one after the other here: the last gets all rows, those before it only their own."""

    world: int = 3
    exchanged: list[torch.Tensor] = dataclasses.field(default_factory=list)

    def rows(self, own: torch.Tensor) -> torch.Tensor:
        self.exchanged.append(own)
        return torch.cat(self.exchanged) if len(self.exchanged) == self.world else own.repeat(self.world, 1, 1)


def test_processes_that_share_the_matrices_out_make_the_update_of_one() -> None:
    generator = torch.Generator().manual_seed(0)
    start, gradients = (torch.randn(7, 16, 24, generator=generator) for _ in range(2))

    def updated(processes: Processes) -> list[torch.nn.Parameter]:
        parameters = [torch.nn.Parameter(matrix.clone()) for matrix in start]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.clone()
        Muon(parameters, lr=0.01, weight_decay=0.1, processes=processes).step()
        return parameters

    exchanged: list[torch.Tensor] = []
    for rank in (0, 1, 2):  # the last has everybody's rows
        shared = updated(OneOfThree(rank, exchanged=exchanged))
    assert [len(own) for own in exchanged] == [3, 3, 3]
    assert not exchanged[2][1:].any(), "seven matrices: the third share has one"
    for mine, alone in zip(shared, updated(ALONE), strict=True):
        torch.testing.assert_close(mine, alone, rtol=0, atol=1e-6)


def test_muon_makes_every_direction_of_an_update_nearly_as_large_as_the_others() -> None:
    matrices = torch.randn(3, 24, 64, generator=torch.Generator().manual_seed(0))
    for matrix in orthogonalised(matrices, 5).float():
        values = torch.linalg.svdvals(matrix)
        assert 0.5 < float(values.min()) <= float(values.max()) < 1.4
