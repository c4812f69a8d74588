"""What each process of the group does in the test of `torchrun`: train, then write its own weights."""

import sys
from pathlib import Path

import torch

from training.distributed import processes
from training.train import parse, read_recipe, train

arguments = parse(sys.argv[2:])
torch.set_num_threads(1)
with processes(arguments.device) as (group, device):
    trainer = train(arguments, *read_recipe(arguments), group, device)
torch.save(trainer.model.state_dict(), Path(sys.argv[1]) / f"rank-{group.rank}.pt")
