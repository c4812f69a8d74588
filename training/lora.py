"""Low-rank adapters on linear layers, W·x + (α/r)·B·A·x (Hu et al. 2021, "LoRA", equation 3), and their merging.

    python -m training.lora --bundle BASE --adapters runs/NAME/adapters.safetensors --out DIR

merges a file of adapters into its base: the result is an ordinary bundle. It is what fine-tuning made of them, with the
lexicon that lies beside them, where fine-tuning's `--lm` is given here too.
"""

# Dimensions: I inputs, O outputs of a layer, r rank.

from __future__ import annotations

import dataclasses
import hashlib
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from asr_service.engine.search_space import LETTER_TO_SOUND_FILE
from asr_service.engine.voice_activity import VOICE_FILE
from asr_service.errors import BundleError
from asr_service.lexicon import Lexicon
from asr_service.model.bundle import (
    CARD_FILE,
    LEXICON_FILE,
    LM_FILE,
    WEIGHTS_FILE,
    Bundle,
    load_bundle,
    save_bundle,
)
from asr_service.model.neural_lm import NEURAL_LM_FILE, NEURAL_LM_TOKENIZER_FILE
from training.command_errors import told_in_one_line
from training.command_line import command_parser

DOWN, UP = "lora_down", "lora_up"
_FORMAT = "asr-lora 1"
# What a bundle may have beside what `save_bundle` writes, but for the n-gram.
_OPTIONAL_FILES = (NEURAL_LM_FILE, NEURAL_LM_TOKENIZER_FILE, LETTER_TO_SOUND_FILE, VOICE_FILE)


class LoraLinear(nn.Linear):
    """A linear layer with an adapter beside its frozen weights.

    The weights keep their names, so a state dict is the model's own and, by layer, `lora_down` A (r, I) and `lora_up`
    B (O, r). B starts at zero: before the first step the layer is what it was.
    """

    def __init__(self, linear: nn.Linear, *, rank: int, alpha: float) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.scale = alpha / rank
        self.lora_down = nn.Parameter(torch.empty(rank, self.in_features, device=linear.weight.device))
        self.lora_up = nn.Parameter(torch.zeros(self.out_features, rank, device=linear.weight.device))
        nn.init.kaiming_uniform_(self.lora_down, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + F.linear(F.linear(x, self.lora_down), self.lora_up) * self.scale


def add_adapters(model: nn.Module, *, rank: int, alpha: float, targets: Sequence[str]) -> list[str]:
    """Put an adapter beside each linear layer whose own name is one of `targets`, and freeze everything else.

    Returns the layers' full names. Raises ValueError for a target that no linear layer bears.
    """
    linears = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    own_names = {name: name.rpartition(".")[2] for name in linears}
    for target in targets:
        if target not in own_names.values():
            known = ", ".join(sorted(set(own_names.values())))
            raise ValueError(f"finetune.targets: no linear layer is called {target!r}; there are {known}")
    model.requires_grad_(False)
    adapted = [name for name in linears if own_names[name] in targets]
    for name in adapted:
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, LoraLinear(linears[name], rank=rank, alpha=alpha))
    return adapted


def adapters_of(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The adapters of a state dict."""
    return {name: value for name, value in state.items() if name.endswith((DOWN, UP))}


def merged(state: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """A state dict without adapters, whose layers compute what they computed with them: W + (α/r)·B·A."""
    adapters = adapters_of(state)
    weights = {name: value for name, value in state.items() if name not in adapters}
    for name in adapters:
        if name.endswith(UP):
            layer = name.removesuffix(UP)
            delta = adapters[name].double() @ adapters[layer + DOWN].double() * scale
            weight = weights[layer + "weight"]
            weights[layer + "weight"] = (weight.double() + delta).to(weight.dtype)
    return weights


@dataclasses.dataclass(frozen=True, slots=True)
class Adapters:
    """Adapters as a file holds them; `base` is the SHA-256 of the weights file that they belong to."""

    tensors: dict[str, Tensor]
    rank: int
    alpha: float
    base: str

    def save(self, path: Path) -> None:
        tensors = {name: value.detach().float().contiguous().cpu() for name, value in self.tensors.items()}
        metadata = {"format": _FORMAT, "rank": str(self.rank), "alpha": repr(self.alpha), "base": self.base}
        save_file(tensors, path, metadata)

    @staticmethod
    def load(path: Path) -> Adapters:
        """Raises BundleError that names the file, when it is missing or holds no adapters."""
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
        except (SafetensorError, OSError) as error:
            raise BundleError(f"{path}: not a safetensors file: {error}") from error
        if metadata.get("format") != _FORMAT or not tensors or adapters_of(tensors).keys() != tensors.keys():
            raise BundleError(f"{path}: holds no adapters of the form {_FORMAT!r}")
        return Adapters(tensors, int(metadata["rank"]), float(metadata["alpha"]), metadata["base"])


def weights_digest(bundle: Bundle) -> str:
    """SHA-256 of a bundle's weights file."""
    return hashlib.sha256((bundle.directory / WEIGHTS_FILE).read_bytes()).hexdigest()


def check_out(base: Bundle, out: Path) -> None:
    """Raise ValueError where `out` is the base's own directory, by whatever path: the base would be overwritten."""
    if out.exists() and out.samefile(base.directory):
        raise ValueError(f"{out}: the directory of the base, which would be overwritten; name another with --out")


def with_lm(base: Bundle, lm: Path) -> Bundle:
    """The bundle with the language model `lm`. Raises BundleError when there is no such file."""
    if not lm.is_file():
        raise BundleError(f"{lm}: no such file")
    return dataclasses.replace(base, lm_path=lm)


def write_bundle(
    base: Bundle, weights: Mapping[str, Tensor], out: Path, *, name: str, card: str, lm: Path | None
) -> None:
    """Save `base` with other weights, and with the n-gram at `lm` (None: without one).

    The base's other optional files are copied, those that `out` has of an earlier bundle removed. Raises ValueError as
    `check_out` does.
    """
    check_out(base, out)
    save_bundle(
        out,
        name=name,
        weights=dict(weights),
        mean=base.front_end.mean,
        std=base.front_end.std,
        model_config=base.model.config,
        feature_config=base.front_end.config,
        streaming=base.streaming,
        decoding=base.decoding,
        dial=base.dial,
        pieces=base.pieces,
        lexicon=base.lexicon,
        language=base.language,
    )
    for file in _OPTIONAL_FILES:
        source = base.directory / file
        _put(source if source.is_file() else None, out / file)
    _put(lm, out / LM_FILE)
    (out / CARD_FILE).write_text(card, encoding="utf-8")


def _put(source: Path | None, target: Path) -> None:
    """Make `target` a copy of `source`; None: remove it."""
    if source is not None and target.exists() and target.samefile(source):
        return
    target.unlink(missing_ok=True)  # never written into: it may be a link, or mapped
    if source is not None:
        shutil.copyfile(source, target)


def merge_file(base: Bundle, path: Path, out: Path, *, name: str) -> None:
    """Merge a file of adapters into its base, with whatever lexicon and language model `base` has been given.

    Raises BundleError when they belong to other weights: an adapter is a difference, and means nothing elsewhere;
    ValueError as `check_out` does.
    """
    adapters = Adapters.load(path)
    if adapters.base != weights_digest(base):
        raise BundleError(
            f"{path}: adapters of other weights (SHA-256 {adapters.base[:12]}…) than {base.directory} has"
        )
    weights = merged(base.model.state_dict() | adapters.tensors, adapters.alpha / adapters.rank)
    card = f"# {name}\n\n{base.name} with the adapters of {path.name} (rank {adapters.rank}) merged into it.\n"
    write_bundle(base, weights, out, name=name, card=card, lm=base.lm_path)


def main(argv: Sequence[str] | None = None) -> None:
    parser = command_parser("lora", __doc__)
    parser.add_argument("--bundle", type=Path, required=True, help="the bundle that the adapters were trained on")
    parser.add_argument("--adapters", type=Path, required=True, help="file that fine-tuning left")
    parser.add_argument("--out", type=Path, required=True, help="bundle directory")
    parser.add_argument("--lm", type=Path, help="n-gram (ARPA or KenLM trie) in the place of the bundle's")
    parser.add_argument("--name", help="of the new bundle (default: the directory's)")
    arguments = parser.parse_args(argv)
    with told_in_one_line("lora"):
        base = load_bundle(arguments.bundle)
        lexicon = arguments.adapters.with_name(LEXICON_FILE)
        if beside := lexicon.is_file():
            base = dataclasses.replace(base, lexicon=Lexicon.load(lexicon))
        if arguments.lm is not None:
            base = with_lm(base, arguments.lm)
        merge_file(base, arguments.adapters, arguments.out, name=arguments.name or arguments.out.name)
    print(
        f"{arguments.out}: an ordinary bundle; lexicon: {lexicon if beside else 'that of the base'}, "
        f"language model: {arguments.lm or 'that of the base'}"
    )


if __name__ == "__main__":
    main()
