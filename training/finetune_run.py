"""One fine-tuning run: the ordinary trainer over an adapted model and mixed data, with looks at both dev sets between.

The run's folder holds whatever it needs to go on: checkpoints, the looks so far, the best weights.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from asr_service.lexicon import PHONE_VOCABULARY_SIZE, Lexicon
from asr_service.model.bundle import CARD_FILE, LEXICON_FILE, Bundle, load_bundle
from asr_service.model.transformer import Transformer
from asr_service.tokenizer import WordPieces
from training.data import PcmStore, Utterance, speech_dir
from training.dataset import make_examples
from training.example import in_words
from training.finetune_config import FinetuneConfig
from training.finetune_data import Mix, check_texts, check_tokenizer, extended_lexicon, mix, short_enough
from training.finetune_identity import identity, is_same, keep_identity
from training.finetune_looks import Look, Looks, Recognised, evaluated, evenly
from training.lexicon import Pronouncer
from training.lora import Adapters, adapters_of, add_adapters, merged, weights_digest, with_lm, write_bundle
from training.recipe import DataConfig, Recipe
from training.selection import dev_utterances, spelled_out, training_utterances
from training.spent import SPENT_FILE
from training.tokenizer import check_transcripts
from training.trainer import Trainer

BEST_FILE = "best.safetensors"
ADAPTERS_FILE = "adapters.safetensors"
_LOOKS_FILE = "looks.json"


class FineTuning:
    """One run: a bundle, a recipe, and a folder that holds whatever the run needs to go on."""

    def __init__(
        self,
        recipe: Recipe,
        base: Bundle,
        folder: Path,
        *,
        lm: Path | None = None,
        device: torch.device,
        pronouncer: Pronouncer | None = None,
        workers: int = 2,
    ) -> None:
        """`lm`: a KenLM file that takes the place of the bundle's.

        Raises ValueError that names what does not fit: the recipe, the run's folder, the tokenizer, the phones, a text.
        """
        if recipe.finetune is None:
            raise ValueError(f"the recipe {recipe.name} has no [finetune]")
        self.config: FinetuneConfig = recipe.finetune
        if recipe.augment.lead_frames:
            raise ValueError("[augment] lead_frames cannot be in a recipe with [finetune]: it is the bundle's")
        # What the encoder will hear first when it serves, it hears first when it learns.
        augment = dataclasses.replace(recipe.augment, lead_frames=base.streaming.lead_frames)
        self.recipe = dataclasses.replace(recipe, model=base.model.config, augment=augment)
        self.base, self.folder, self.device = base, folder, device
        self._check_base()
        searched = base if lm is None else with_lm(base, lm)
        now = identity(self.recipe, base, searched.lm_path)
        same = is_same(folder, now)
        self.target, self.old = self._utterances()
        old_dev = dataclasses.replace(
            recipe.data,
            dev_manifest=self.config.old_dev_manifest,
            dev_corpora=self.config.old_dev_corpora,
            dev_path_pattern="",
        )
        self.dev, self.old_dev = (
            evenly(self._measurable(data), self.config.report_utterances) for data in (recipe.data, old_dev)
        )
        for data, utterances in ((recipe.data, self.dev), (old_dev, self.old_dev)):
            if gone := [utterance.source for utterance in utterances if not utterance.path.is_file()]:
                raise ValueError(f"{data.dev_manifest}: {len(gone)} recording(s) are not there, the first {gone[0]}")
        if {utterance.source for utterance in self.old_dev} <= {utterance.source for utterance in self.dev}:
            print(
                f"warning: [finetune] old_dev_manifest {self.config.old_dev_manifest}: the target's own dev set; "
                "forgetting cannot be seen there"
            )
        self.searched = self._with_words(searched, pronouncer or Pronouncer())  # after what may be refused: it is slow
        self.trainer = self._trainer(workers)
        # What is refused above leaves the folder as it was, to be started again with what was wrong put right.
        if not same:
            for left in (_LOOKS_FILE, SPENT_FILE):  # of another run
                (folder / left).unlink(missing_ok=True)
            keep_identity(folder, now)
        self.looks = Looks(folder / _LOOKS_FILE, limit=self.config.forgetting_limit)

    @staticmethod
    def _measurable(data: DataConfig) -> list[Utterance]:
        utterances = dev_utterances(data)
        return [utterances[row] for row in spelled_out(data.dev_manifest, utterances, range(len(utterances)))]

    def _check_base(self) -> None:
        """The run's tokenizer and phones are the bundle's."""
        base, config = self.base, self.config
        if config.tokenizer:
            check_tokenizer(base.pieces, WordPieces.load(Path(config.tokenizer)), Path(config.tokenizer))
        check_transcripts(base.pieces, base.directory)
        phones = base.model.config.phone_vocab_size
        if phones not in (0, PHONE_VOCABULARY_SIZE):
            raise ValueError(
                f"{base.directory}: phone CTC of {phones} outputs, the lexicon's phones and blank are "
                f"{PHONE_VOCABULARY_SIZE}"
            )

    def _utterances(self) -> tuple[list[Utterance], Mix]:
        data, config, optim = self.recipe.data, self.config, self.recipe.optim
        target = check_texts(
            speech_dir() / data.manifest, training_utterances(data), self.base.pieces, drop=config.drop_unwritable
        )
        target = short_enough(data.manifest, target, data.max_utterance_s)
        if not target:
            raise ValueError(f"{data.manifest}: no utterance is left to train on")
        old: list[Utterance] = []
        if config.old_share:
            selection = dataclasses.replace(
                data, manifest=config.old_manifest, corpora=config.old_corpora, path_pattern="", exclude_corpora=()
            )
            old = short_enough(config.old_manifest, training_utterances(selection), data.max_utterance_s)
        run_s = optim.max_steps * optim.accumulate * data.batch_s
        mixed = mix(target, old, share=config.old_share, run_s=run_s, seed=self.recipe.seed)
        if config.old_share and not mixed.old:
            raise ValueError(
                f"[finetune] old_share is {config.old_share}, but {config.old_manifest} has nothing besides the target"
                ": name old data (old_manifest, old_corpora), or set old_share = 0"
            )
        target_s = sum(utterance.duration_s for utterance in target)
        share = mixed.share(target_s)
        passes = run_s * (1 - share) / target_s
        print(
            f"target: {len(target)} utterances, {target_s / 3600:.2f} h, some {passes:.1f} passes in the run; old: "
            f"{len(mixed.old)} utterances, {share:.0%} of the seconds (asked: {config.old_share:.0%})"
        )
        return target, mixed

    def _with_words(self, bundle: Bundle, pronouncer: Pronouncer) -> Bundle:
        """The bundle with the lexicon that the result will be searched with."""
        if bundle.lexicon is None:
            return bundle
        extra = Lexicon.load(Path(self.recipe.data.lexicon)) if self.recipe.data.lexicon else None
        texts = [utterance.text for utterance in self.target]
        lexicon, new = extended_lexicon(bundle.lexicon, extra, texts, pronouncer)
        if not new and extra is None:
            return bundle
        print(f"{len(new)} words are new in the lexicon: {' '.join(new[:20])}{' …' if len(new) > 20 else ''}")
        return dataclasses.replace(bundle, lexicon=lexicon)

    def _trainer(self, workers: int) -> Trainer:
        """The ordinary trainer over the adapted model and the mixed data."""
        torch.manual_seed(self.recipe.seed)
        model = Transformer(self.recipe.model)
        model.load_state_dict(self.base.model.state_dict())
        config = self.config
        if config.method == "lora":
            add_adapters(model, rank=config.rank, alpha=config.alpha, targets=config.targets)
        for prefix in config.freeze:
            frozen = [parameter for name, parameter in model.named_parameters() if name.startswith(prefix)]
            if not frozen:
                raise ValueError(f"finetune.freeze: no weight's name starts with {prefix!r}")
            for parameter in frozen:
                parameter.requires_grad_(False)
        learning = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        print(f"{learning / 1e6:.3f} M of {sum(p.numel() for p in model.parameters()) / 1e6:.3f} M parameters learn")
        utterances = [*self.target, *self.old.old]
        store = PcmStore.build(utterances, self.folder / "pcm", workers=workers)
        examples, counts = make_examples(
            utterances,
            self.base.pieces,
            self.searched.lexicon,
            max_utterance_s=self.recipe.data.max_utterance_s,
            store=store,
            output_subsampling=self.recipe.model.output_subsampling,
        )
        print(f"{len(examples)} examples; {in_words(counts)}")
        target = [example for example in examples if example.index < len(self.target)]
        if not target:
            raise ValueError(f"{self.recipe.data.manifest}: no utterance can be trained on ({in_words(counts)})")
        return Trainer(
            self.recipe,
            model,
            self.base.front_end,
            store,
            [*target * self.old.passes, *examples[len(target) :]],
            self.folder,
            device=self.device,
        )

    def weights(self) -> dict[str, Tensor]:
        """The averaged weights as a bundle will hold them: merged, fp16 values."""
        scale = self.config.alpha / self.config.rank
        state = {name: value.detach().cpu() for name, value in self.trainer.average.items()}
        return {name: value.half().float() for name, value in merged(state, scale).items()}

    def run(self, *, save_every_s: float, until: float = math.inf) -> bool:
        """Train and look in turn; False when a signal or the time ended it before the last step.

        `until`: by `time.monotonic`; a look that has begun is ended.
        """
        trainer, steps = self.trainer, self.recipe.optim.max_steps
        trainer.resume()
        while True:
            step = trainer.position.step
            if step % self.config.look_every == 0 or step == steps:
                look = self.looks.at(step) or self.look(step)
                if self.looks.has_forgotten(look) and self.config.on_forgetting == "stop":
                    print("stopping there (finetune.on_forgetting)")
                    return True
            if step >= steps:
                return True
            next_look = min(steps, (step // self.config.look_every + 1) * self.config.look_every)
            left = None if until == math.inf else (until - time.monotonic()) / 60
            trainer.run(dev=(), evaluate_every=steps, save_every_s=save_every_s, max_minutes=left, until=next_look)
            if trainer.position.step < next_look:
                return False

    def look(self, step: int) -> Look:
        """Recognise some of both dev sets with the averaged weights, and keep those if they are the best so far."""
        weights = self.weights()
        bundle = bundle_with(self.searched, weights)
        sets = []
        for utterances in (self.dev, self.old_dev):
            chosen = evenly(range(len(utterances)), self.config.look_utterances)
            if step == 0 and self.searched is self.base:
                sets.append(self.before(utterances).every(chosen))  # the base itself has done these
            else:
                sets.append(evaluated(bundle, [utterances[i] for i in chosen]))
        target, old = sets
        look = Look(step, target.wer, old.wer)
        self.looks.add(look)
        print(f"step {step}  target {target.shown()}  old {old.shown()}", flush=True)
        if self.looks.has_forgotten(look):
            rise = 100 * (look.old - self.looks.looks[0].old)
            limit = 100 * self.config.forgetting_limit
            print(f"FORGETTING: old dev is {rise:.1f} points worse than before (finetune.forgetting_limit {limit:.1f})")
        if self.looks.best == look and step:
            self._keep(weights)
        self.looks.save()  # last: the weights of the best that is noted are there
        return look

    def _keep(self, weights: Mapping[str, Tensor]) -> None:
        partial = self.folder / f"{BEST_FILE}.partial"
        save_file(dict(weights), partial)
        partial.rename(self.folder / BEST_FILE)
        if self.config.method == "lora":
            adapters = adapters_of(self.trainer.average)
            config = self.config
            Adapters(adapters, config.rank, config.alpha, weights_digest(self.base)).save(self.folder / ADAPTERS_FILE)
            if self.searched.lexicon is not None:  # for who merges them into the base later
                self.searched.lexicon.save(self.folder / LEXICON_FILE)

    def before(self, utterances: Sequence[Utterance]) -> Recognised:
        """What the base as it is delivered makes of a set; done once for one bundle."""
        return evaluated(self.base, utterances, self.folder.parent / "evaluations")

    def export(self, out: Path, name: str) -> Bundle:
        """Write the best look's bundle. Raises ValueError when no look is better than the base."""
        best = self.looks.best
        if best.step == 0:
            raise ValueError(
                f"no look at the target is better than the base within finetune.forgetting_limit: {self.looks.told()}"
            )
        card = (
            f"# {name}\n\n{self.base.name} adapted to {self.recipe.data.manifest} "
            f"({', '.join(self.recipe.data.corpora) or 'all of it'}), method {self.config.method}, {best.step} steps.\n"
        )
        base_card = self.base.directory / CARD_FILE
        if base_card.is_file():
            card += f"\nThe base's card:\n\n{base_card.read_text(encoding='utf-8')}"
        weights = load_file(self.folder / BEST_FILE)
        write_bundle(self.searched, weights, out, name=name, card=card, lm=self.searched.lm_path)
        return load_bundle(out)


def bundle_with(bundle: Bundle, weights: Mapping[str, Tensor]) -> Bundle:
    """The bundle with other weights."""
    model = Transformer(bundle.model.config)
    model.load_state_dict(dict(weights))
    return dataclasses.replace(bundle, model=model.eval().requires_grad_(False))
