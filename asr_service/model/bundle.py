"""A bundle: the directory that holds a model and all that recognition needs beside it. No pickle anywhere.

config.json        name, language, shape of model and front end, streaming geometry, search weights
model.safetensors  weights (fp16, or int8 with scales) and the front end's mean and standard deviation (CMVN)
tokenizer.json     word pieces
lexicon.txt.gz     pronunciations (models with phones)
lm.kenlm           KenLM binary n-gram, memory-mapped (optional, for models with phones)
neural_lm*         neural language model and its word pieces, for the final ranking beside the n-gram (optional)
README.md          model card
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from asr_service.config import LATENCIES
from asr_service.errors import BundleError, ConfigError
from asr_service.features import FeatureConfig, LogMel
from asr_service.lexicon import Lexicon
from asr_service.model.config import TransformerConfig
from asr_service.model.int8 import quantised, restored
from asr_service.model.neural_lm import NEURAL_LM_FILE, NEURAL_LM_TOKENIZER_FILE, NeuralLM, load_neural_lm
from asr_service.model.transformer import Transformer
from asr_service.tokenizer import WordPieces

FORMAT = 1
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
TOKENIZER_FILE = "tokenizer.json"
LEXICON_FILE = "lexicon.txt.gz"
LM_FILE = "lm.kenlm"
CARD_FILE = "README.md"
# The latency of a bundle's `streaming` and `decoding` themselves; its dial has the others.
OWN_LATENCY = "balanced"
_DIAL = tuple(latency for latency in LATENCIES if latency != OWN_LATENCY)
SHIPPED_DIR = Path(__file__).parents[1] / "models"
DEFAULT_MODEL = "en-s"


@dataclass(frozen=True, slots=True)
class StreamingConfig:
    """Geometry of encoding, in 40 ms frames, all even.

    Attributes:
        chunk_frames: frames that a step adds to the transcript.
        left_frames: frames before them that they see.
        lookahead_frames: frames after them that they see, and that the next step encodes again: a frame at the end of
            a chunk would otherwise have no future at all, which costs more words than a longer chunk saves.
        lead_frames: silence that the encoder hears before the first frame, of a whole utterance too, and that is left
            out of what it gives. A model that was trained on recordings which begin before their first word loses a
            first word that nothing is before (push to talk, a tight cut); to one that was trained on such clips alone,
            silence is strange.
    """

    chunk_frames: int = 16
    left_frames: int = 128
    lookahead_frames: int = 8
    lead_frames: int = 0

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            least = 2 if name in ("chunk_frames", "left_frames") else 0
            if isinstance(value, bool) or not isinstance(value, int) or value < least or value % 2:
                raise ConfigError(
                    f"streaming.{name} is {value!r}, must be an even number of 40 ms frames from {least} on"
                )


@dataclass(slots=True)
class Bundle:
    """A loaded bundle; the model is in evaluation mode, fp32.

    Attributes:
        streaming, decoding: of `OWN_LATENCY`.
        dial: by latency, the fields of `streaming` and `decoding` that differ there.
        neural_lm: with its word pieces; None for a bundle without one.
    """

    name: str
    language: str
    model: Transformer
    front_end: LogMel
    pieces: WordPieces
    lexicon: Lexicon | None
    lm_path: Path | None
    streaming: StreamingConfig
    decoding: dict[str, Any]
    directory: Path
    dial: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    neural_lm: tuple[NeuralLM, WordPieces] | None = None

    def at(self, latency: str) -> Bundle:
        """The bundle with the settings of one of `config.LATENCIES`. Raises BundleError where it has none for it."""
        if latency == OWN_LATENCY:
            return self
        if latency not in self.dial:
            known = ", ".join([OWN_LATENCY, *self.dial])
            raise BundleError(f"{self.directory}: no settings for {latency!r} latency; there are {known}", field="dial")
        changes = self.dial[latency]
        return dataclasses.replace(
            self,
            streaming=dataclasses.replace(self.streaming, **changes.get("streaming", {})),
            decoding=_merged(self.decoding, changes.get("decoding", {})),
        )


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with what `changes` says otherwise, table by table."""
    merged = dict(base)
    for name, value in changes.items():
        merged[name] = _merged(base.get(name, {}), value) if isinstance(value, dict) else value
    return merged


def read_config(directory: Path) -> dict[str, Any]:
    """A bundle's settings, with all sections there. Raises BundleError that names the file, and what is wrong."""
    path = directory / CONFIG_FILE
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BundleError(f"model directory {directory}: cannot read {CONFIG_FILE}: {error.strerror}") from error
    except ValueError as error:
        raise BundleError(f"{path}: not JSON: {error}") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise BundleError(f"{path}: format is not {FORMAT}, the one this version reads")
    missing = [key for key in ("name", "language", "model", "features", "streaming", "decoding") if key not in config]
    if missing:
        raise BundleError(f"{path}: the field {missing[0]!r} is missing")
    decoding = config["decoding"]
    if not isinstance(decoding, dict) or not isinstance(decoding.get("rescoring", {}), dict):
        raise BundleError(f"{path}: decoding must be a table, and decoding.rescoring one of it")
    dial = config.setdefault("dial", {})
    if not isinstance(dial, dict) or not all(
        latency in _DIAL
        and isinstance(changes, dict)
        and set(changes) <= {"streaming", "decoding"}
        and all(isinstance(table, dict) for table in changes.values())
        for latency, changes in dial.items()
    ):
        raise BundleError(f"{path}: dial must have tables of {', '.join(_DIAL)}, each of streaming and decoding")
    return config


def load_bundle(directory: Path) -> Bundle:
    """Read and check a bundle.

    Raises BundleError that names the file: one that is missing, is not of its kind, or does not fit the others.
    """
    if not directory.is_dir():
        raise BundleError(f"model directory {directory}: no such directory")
    config = read_config(directory)
    try:
        model_config = TransformerConfig.from_dict(config["model"])
        feature_config = FeatureConfig(**config["features"])
        streaming = StreamingConfig(**config["streaming"])
        for changes in config["dial"].values():
            dataclasses.replace(streaming, **changes.get("streaming", {}))
    except (TypeError, ConfigError) as error:
        raise BundleError(f"{directory / CONFIG_FILE}: {error}") from error
    needed = [WEIGHTS_FILE, TOKENIZER_FILE] + ([LEXICON_FILE] if model_config.phone_vocab_size else [])
    for name in needed:
        if not (directory / name).is_file():
            raise BundleError(f"model directory {directory}: the file {name} is missing")
    pieces = WordPieces.load(directory / TOKENIZER_FILE)
    if pieces.vocab_size != model_config.vocab_size:
        raise BundleError(
            f"{directory}: {TOKENIZER_FILE} has {pieces.vocab_size} tokens, the model {model_config.vocab_size}"
        )
    lexicon = Lexicon.load(directory / LEXICON_FILE) if model_config.phone_vocab_size else None
    neural_lm = load_neural_lm(directory)
    if neural_lm is not None and (missing := neural_lm[1].unknown_characters(pieces.characters)):
        raise BundleError(
            f"{directory / NEURAL_LM_TOKENIZER_FILE} lacks {''.join(missing)!r}, which {TOKENIZER_FILE} has"
        )
    if neural_lm is None and (weight := config["decoding"].get("rescoring", {}).get("neural_lm")):
        raise BundleError(f"{directory}: decoding.rescoring.neural_lm is {weight}, but {NEURAL_LM_FILE} is missing")
    lm_path = directory / LM_FILE
    if lexicon is None and lm_path.is_file():
        raise BundleError(f"{lm_path}: of no use to a model without phones (model.phone_vocab_size is 0): leave it out")
    model = Transformer(model_config)
    front_end = LogMel(feature_config)
    _load_weights(directory / WEIGHTS_FILE, model, front_end)
    return Bundle(
        name=config["name"],
        language=config["language"],
        model=model.eval().requires_grad_(False),
        front_end=front_end.eval(),
        pieces=pieces,
        lexicon=lexicon,
        lm_path=lm_path if lm_path.is_file() else None,
        streaming=streaming,
        decoding=config["decoding"],
        directory=directory,
        dial=config["dial"],
        neural_lm=neural_lm,
    )


def _load_weights(path: Path, model: Transformer, front_end: LogMel) -> None:
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise BundleError(f"{path}: not a safetensors file: {error}") from error
    try:
        weights = restored({name: tensor for name, tensor in tensors.items() if not name.startswith("cmvn.")})
    except ValueError as error:
        raise BundleError(f"{path}: {error}") from error
    wanted = model.state_dict()
    for name, tensor in wanted.items():
        if name not in weights or weights[name].shape != tensor.shape:
            raise BundleError(f"{path}: {name} of shape {tuple(tensor.shape)} is missing or of another shape")
    if unknown := sorted(set(weights) - set(wanted)):
        raise BundleError(f"{path}: the model has no weight {unknown[0]}")
    if not all(torch.isfinite(tensor).all() for tensor in weights.values()):
        raise BundleError(f"{path}: there are weights that are not finite")
    model.load_state_dict(weights, assign=True)
    for name in ("mean", "std"):
        values = tensors.get(f"cmvn.{name}")
        if values is None or values.shape != (front_end.config.n_mels,):
            raise BundleError(f"{path}: cmvn.{name} of shape ({front_end.config.n_mels},) is missing")
        if not torch.isfinite(values).all() or (name == "std" and not (values > 0).all()):
            raise BundleError(f"{path}: cmvn.{name} has values that are not finite, or a deviation of 0")
        setattr(front_end, name, values.float())


def save_bundle(
    directory: Path,
    *,
    name: str,
    weights: dict[str, Tensor],
    mean: Tensor,
    std: Tensor,
    model_config: TransformerConfig,
    feature_config: FeatureConfig,
    streaming: StreamingConfig,
    decoding: dict[str, Any],
    pieces: WordPieces,
    lexicon: Lexicon | None,
    language: str = "en-US",
    dial: Mapping[str, Mapping[str, Any]] | None = None,
    int8: bool = False,
) -> None:
    """Write a bundle, weights in fp16 or `int8`, statistics in fp32. Language models and the card are put beside it."""
    directory.mkdir(parents=True, exist_ok=True)
    if int8:
        tensors = quantised(weights)
    else:
        tensors = {key: value.detach().to(torch.float16).contiguous() for key, value in weights.items()}
    save_file(tensors | {"cmvn.mean": mean.float(), "cmvn.std": std.float()}, directory / WEIGHTS_FILE)
    (directory / WEIGHTS_FILE).chmod(0o644)  # the library writes for the owner alone; a package is read by everybody
    config = {
        "format": FORMAT,
        "name": name,
        "language": language,
        "model": model_config.to_dict(),
        "features": dataclasses.asdict(feature_config),
        "streaming": dataclasses.asdict(streaming),
        "decoding": decoding,
        "dial": dial or {},
    }
    (directory / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    pieces.save(directory / TOKENIZER_FILE)
    if lexicon is not None:
        lexicon.save(directory / LEXICON_FILE)
