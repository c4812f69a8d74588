"""Train a recipe in stages: before it, those that it goes on from (`[start]`), each until it is finished.

    python -m training.stages --config training/recipes/libri-mini.toml

A stage's run lies in RUNS/NAME (RUNS/NAME-seedN with `--seed`, which is that of every stage), and what it gives in
RUNS/NAME/bundle: its weights, or the mean of these and of what it began with. A stage that is finished is not trained
again (what another recipe trained is refused), one that was interrupted goes on: with the same command, as on a machine
with a time limit (`--max-minutes 9`: the exit status is 2 until all is done). Keep all their folders until then.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from training.checkpoint import latest_checkpoint, load_checkpoint
from training.command_errors import told_in_one_line
from training.command_line import command_parser
from training.distributed import check_alone
from training.export import main as export_main
from training.initial import check_shape
from training.lexicon import LEXICON_FILE
from training.recipe import Recipe
from training.run_options import add_pace_options, add_run_options
from training.same_run import check_finished
from training.spent import SPENT_FILE, Spent, spent
from training.train import main as train_main
from training.train import parse, read_recipe


@dataclass(frozen=True, slots=True)
class Stage:
    """One run of several.

    Attributes:
        options: of `training.train`, but for what it begins with.
        recipe: as `training.train` reads it with these.
        start: the stage whose bundle it begins with; None: with random weights.
    """

    options: tuple[str, ...]
    recipe: Recipe
    folder: Path
    start: Stage | None

    @property
    def bundle(self) -> Path:
        return self.folder / "bundle"

    @property
    def steps(self) -> int:
        """Of this stage and those before."""
        return self.recipe.optim.max_steps + (self.start.steps if self.start else 0)

    def train(self, until: float = math.inf) -> None:
        """Train what is not finished of this stage and those before, whose bundles are made; `until` a time of
        `time.monotonic`.

        Raises ValueError for a folder that holds the run of another recipe, where a signal or the time ended a run, and
        under torchrun.
        """
        check_alone("a chain of stages")
        if self.start is not None:
            self.start.train(until)
            self.start.export()
        if self._finished():
            return
        begins = [] if self.start is None else ["--init-from", str(self.start.bundle)]
        limit = [] if until == math.inf else ["--max-minutes", str(max(0.0, until - time.monotonic()) / 60)]
        print(f"{self.recipe.name}: training in {self.folder}", flush=True)
        train_main([*self.options, *begins, *limit])
        if not self._finished():
            raise ValueError(f"{self.folder} was interrupted; the same command goes on")

    def _finished(self) -> bool:
        newest = latest_checkpoint(self.folder)
        if newest is None:
            return False
        state = load_checkpoint(newest)
        if state["step"] < self.recipe.optim.max_steps:
            return False
        check_finished(self.folder, state.get("run"), self.recipe)
        return True

    def check_timed(self) -> None:
        """Raises ValueError where a finished stage, this one or one before, has no time for `spent` to tell."""
        if self.start is not None:
            self.start.check_timed()
        if self._finished() and not (self.folder / SPENT_FILE).exists():
            raise ValueError(
                f"{self.folder} is finished, but has no {SPENT_FILE} that says what it took. Measure a bundle of it "
                "(training.export, --bundle), or train it anew elsewhere (--runs)"
            )

    def export(self) -> Path:
        """What the stage gives, written as a bundle with the run's lexicon, and no language model."""
        lexicon = self.recipe.data.lexicon or str(self.folder / LEXICON_FILE)
        also = [self.start.bundle] * self.recipe.start.copies if self.start and self.recipe.start else []
        command = ["--run", self.folder, "--out", self.bundle, "--name", self.recipe.name, "--lexicon", lexicon]
        export_main([str(part) for part in command] + [part for path in also for part in ("--also", str(path))])
        return self.bundle

    def spent(self) -> Spent:
        """What this stage and those before took; date, machine and commit are the last one's."""
        own = spent(self.folder)
        before = self.start.spent() if self.start else None
        return own if before is None else own.after(before)


def stage(config: Path, options: Sequence[str], *, after: tuple[Path, ...] = ()) -> Stage:
    """The recipe's last stage, which knows those before; `options` are of `training.train`, but for the recipe.

    `after`: recipes that go on from this one. Raises ValueError where one is missing or wrong, is its own start, or has
    a model of another shape than the one it goes on from.
    """
    if config in after:
        raise ValueError(f"{after[0]}: goes on from itself by way of {after[-1].name}")
    all_options = ("--config", str(config), *options)
    recipe, folder = read_recipe(parse(all_options))
    start = None
    if recipe.start is not None:
        before = config.with_name(f"{recipe.start.recipe}.toml")
        start = stage(before, options, after=(*after, config))
        check_shape(before, start.recipe.model, recipe.model)
    return Stage(all_options, recipe, folder, start)


def main(argv: Sequence[str] | None = None) -> None:
    parser = command_parser("stages", __doc__)
    parser.add_argument("--config", type=Path, required=True, help="recipe, a TOML file; those before lie beside it")
    add_run_options(parser)
    add_pace_options(parser)
    parser.add_argument("--seed", type=int, help="of every stage, instead of each recipe's own")
    arguments = parser.parse_args(argv)
    options = ["--runs", arguments.runs, "--threads", arguments.threads, "--device", arguments.device]
    options += ["--save-minutes", arguments.save_minutes]
    options += [] if arguments.seed is None else ["--seed", arguments.seed]
    options += ["--compile"] if arguments.compile else []
    until = math.inf if arguments.max_minutes is None else time.monotonic() + 60 * arguments.max_minutes
    with told_in_one_line("stages"):
        last = stage(arguments.config, [str(option) for option in options])
        last.train(until)
        last.export()


if __name__ == "__main__":
    main()
