"""Schedule and parameter groups."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

from asr_service.model.config import PRESETS
from asr_service.model.transformer import Transformer
from training.distributed import ALONE, Processes
from training.muon import ITERATIONS, Muon, orthogonalised
from training.optim import learning_rate_factor, make_optimizers
from training.recipe import OptimConfig

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
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


def test_muon_reads_torchs_state_and_makes_nearly_its_updates() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(16, 16), (32, 16), (16, 48), (16, 16), (32, 16)]
    ours, theirs = ([torch.nn.Parameter(torch.full(shape, 0.1)) for shape in shapes] for _ in range(2))
    settings = {"lr": 0.01, "weight_decay": 0.1}
    muon = Muon(ours, **settings)
    reference = torch.optim.Muon(theirs, **settings, adjust_lr_fn="match_rms_adamw")
    for step in range(4):
        before = [mine.detach().clone() for mine in ours]
        for mine, other in zip(ours, theirs, strict=True):
            other.data.copy_(mine)
            mine.grad = torch.randn(mine.shape, generator=generator)
            other.grad = mine.grad.clone()
        muon.step()
        reference.step()
        for start, mine, other in zip(before, ours, theirs, strict=True):
            made, expected = mine.detach() - start, other.detach() - start
            assert torch.cosine_similarity(made.flatten(), expected.flatten(), dim=0) > 0.9
            assert float(made.norm()) == pytest.approx(float(expected.norm()), rel=0.15)
        if step == 1:
            muon.load_state_dict(copy.deepcopy(reference.state_dict()))


@pytest.mark.parametrize("shape", [(8, 64, 64), (8, 128, 64), (8, 64, 256)], ids=["square", "tall", "wide"])
@DTYPES
def test_four_iterations_come_as_near_to_orthogonal_as_torchs_five(
    shape: tuple[int, int, int], dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(1)
    left, _, right = torch.linalg.svd(torch.randn(shape, generator=generator), full_matrices=False)
    spread = torch.exp(torch.randn(shape[0], 64, generator=generator))  # a gradient's singular values: far apart
    matrices = left * spread.unsqueeze(1) @ right
    ours = orthogonalised(matrices.to(dtype), ITERATIONS).float()
    for matrix, polar, mine in zip(matrices, left @ right, ours, strict=True):
        parameter = torch.nn.Parameter(torch.zeros_like(matrix))
        parameter.grad = matrix
        torch.optim.Muon([parameter], lr=1.0, momentum=0.0, weight_decay=0.0).step()
        of_ours, of_torch = (torch.cosine_similarity(polar.flatten(), x.flatten(), dim=0) for x in (mine, -parameter))
        assert of_ours > of_torch - 0.015


@DTYPES
def test_the_size_of_a_gradient_is_nothing_to_muon_and_none_at_all_moves_nothing(dtype: torch.dtype) -> None:
    matrix = torch.randn(1, 24, 16, generator=torch.Generator().manual_seed(2)).to(dtype)
    expected = orthogonalised(matrix, ITERATIONS)
    for power in (-12, 12):
        torch.testing.assert_close(orthogonalised(matrix * 2.0**power, ITERATIONS), expected, rtol=0, atol=0.02)
    assert not orthogonalised(torch.zeros(1, 24, 16, dtype=dtype), ITERATIONS).any()


@DTYPES
def test_matrices_together_are_orthogonalised_as_each_alone(dtype: torch.dtype) -> None:
    matrices = torch.randn(5, 32, 16, generator=torch.Generator().manual_seed(3)).to(dtype)
    alone = torch.cat([orthogonalised(matrix.unsqueeze(0), ITERATIONS) for matrix in matrices])
    torch.testing.assert_close(orthogonalised(matrices, ITERATIONS), alone, rtol=0, atol=0.02)


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


@DTYPES
def test_muon_makes_every_direction_of_an_update_nearly_as_large_as_the_others(dtype: torch.dtype) -> None:
    matrices = torch.randn(3, 24, 64, generator=torch.Generator().manual_seed(0)).to(dtype)
    for matrix in orthogonalised(matrices, 5).float():
        values = torch.linalg.svdvals(matrix)
        assert 0.5 < float(values.min()) <= float(values.max()) < 1.4


def test_the_optimisers_are_those_of_the_recipe_with_its_decay() -> None:
    model = Transformer(PRESETS["streaming-s"])
    (adamw,) = make_optimizers(model, OptimConfig(optimizer="adamw", weight_decay=0.07))
    assert isinstance(adamw, torch.optim.AdamW)
    adamw, muon = make_optimizers(model, OptimConfig(weight_decay=0.07))
    assert isinstance(adamw, torch.optim.AdamW) and isinstance(muon, Muon)
    assert [group["betas"] for group in adamw.param_groups] == [(0.9, 0.98)] * 2
    assert {group["weight_decay"] for group in (adamw.param_groups[0], *muon.param_groups)} == {0.07}
