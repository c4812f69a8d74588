"""A recipe: everything a training run is, in one TOML file (training/recipes/*.toml).

A recipe may extend another (`training.recipe_table`).
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from asr_service.decoding.config import DecodingConfig
from asr_service.errors import ConfigError
from asr_service.lexicon import PHONE_VOCABULARY_SIZE
from asr_service.model.bundle import CONFIG_FILE, DEFAULT_MODEL, LEXICON_FILE, LM_FILE, SHIPPED_DIR
from asr_service.model.config import TransformerConfig, preset
from asr_service.toml_types import of_type
from training.finetune_config import FinetuneConfig
from training.kneser_ney import MAX_ORDER, MIN_ORDER
from training.precision import DtypeName
from training.recipe_table import read_table
from training.recipe_values import ABOVE_0, AT_LEAST_0, AT_LEAST_1, MOST, SHARE, typed, within

# Of the looks at dev: one long recording would take as much time and memory as all the others.
DEV_LONGEST_S = 20.0
SHIPPED_LEXICON = SHIPPED_DIR / DEFAULT_MODEL / LEXICON_FILE
# No speech is understood beyond these, and resampling to much slower ones fails.
SPEEDS = (0.1, 10.0)
# A whole number of TOML has 64 bits with its sign; torch takes as many.
MOST_SEED = 2**63 - 1


@dataclass(frozen=True, slots=True)
class DataConfig:
    """Which utterances, and in which batches.

    Attributes:
        manifest, dev_manifest: names in the speech folder (`ASR_SPEECH_DIR`).
        exclude_corpora: left out of training.
        corpora, dev_corpora: only these; all where none is named.
        path_pattern, dev_path_pattern: regular expression that the audio's path must contain.
        tuning_speakers: training speakers that `--hold-out` leaves out, to tune a search on.
        max_utterance_s: longer ones are left out, and counted.
        batch_s: padded seconds in a batch.
        lexicon: pronunciations for the phone targets, such as `python -m training.lexicon` makes; by default those of
            the shipped model; empty: made from the training transcripts, and kept in the run's folder.
        short_first_epochs: this many epochs start with the shortest utterances (they leave CTC's plateau sooner).
        prefetch: on a CPU, batches made ahead by a process of their own; 0: made by the loop when it needs them. A GPU
            makes the batches itself.
    """

    manifest: str = "train.jsonl"
    dev_manifest: str = "dev.jsonl"
    exclude_corpora: tuple[str, ...] = ()
    corpora: tuple[str, ...] = ()
    path_pattern: str = ""
    dev_corpora: tuple[str, ...] = ()
    dev_path_pattern: str = ""
    tuning_speakers: tuple[str, ...] = ()
    max_utterance_s: float = 36.0
    batch_s: float = 120.0
    lexicon: str = str(SHIPPED_LEXICON)
    short_first_epochs: int = 1
    prefetch: int = 0

    def __post_init__(self) -> None:
        """Raises ValueError that names a setting outside its limits, or a pattern that is none."""
        limits = {"max_utterance_s": ABOVE_0, "batch_s": ABOVE_0, "short_first_epochs": AT_LEAST_0, "prefetch": (0, 64)}
        within("data", self, limits)
        for name in ("path_pattern", "dev_path_pattern"):
            try:
                re.compile(getattr(self, name))
            except re.error as error:
                raise ValueError(f"[data] {name} is no regular expression: {error}") from error


@dataclass(frozen=True, slots=True)
class LossConfig:
    """Weights of the sum; each loss is per target token.

    Attributes:
        phone_mmi: of `training.mmi`, for a stage that goes on from weights that CTC has trained; 0: it is not computed.
        consistency: of the distance between two views of an utterance, in upper phones and in word pieces; 0 unless
            `augment.views` is 2.
    """

    lower_phone_ctc: float = 0.3
    phone_ctc: float = 0.7
    phone_mmi: float = 0.0
    consistency: float = 0.0
    ctc: float = 0.4
    attention: float = 0.5
    label_smoothing: float = 0.1

    def __post_init__(self) -> None:
        """Raises ValueError that names a weight below 0, weights that are all 0, or a smoothing that is no share."""
        weights = ("lower_phone_ctc", "phone_ctc", "phone_mmi", "consistency", "ctc", "attention")
        within("loss", self, dict.fromkeys(weights, AT_LEAST_0) | {"label_smoothing": SHARE})
        if not any(getattr(self, name) for name in weights):
            raise ValueError(f"[loss] {', '.join(weights)} are all 0: nothing is learnt, one must be above 0")


@dataclass(frozen=True, slots=True)
class OptimConfig:
    """Muon (Jordan 2024) for the matrices inside, AdamW for the rest; warm-up, plateau, linear decay to zero.

    Attributes:
        accumulate: batches an update; one process takes them in turn, several share them out.
        clip_norm: the gradient's Euclidean norm is cut to this.
        ema_decay: of the moving average of the weights, which is what is evaluated and shipped.
        max_skipped: this many updates in a row that are not finite end the run with an error.
        keep_best: averaged weights kept beside the checkpoints, those of the lowest dev loss.
    """

    optimizer: Literal["muon", "adamw"] = "muon"
    lr: float = 1.5e-3
    weight_decay: float = 0.05
    warmup_steps: int = 300
    max_steps: int = 10_000
    decay_fraction: float = 0.3
    accumulate: int = 1
    clip_norm: float = 5.0
    ema_decay: float = 0.998
    max_skipped: int = 10
    keep_best: int = 5

    def __post_init__(self) -> None:
        """Raises ValueError that names a setting outside its limits."""
        counts = ("warmup_steps", "max_steps", "accumulate", "max_skipped")
        limits = dict.fromkeys(counts, AT_LEAST_1) | dict.fromkeys(("weight_decay", "keep_best"), AT_LEAST_0)
        limits |= dict.fromkeys(("decay_fraction", "ema_decay"), SHARE) | dict.fromkeys(("lr", "clip_norm"), ABOVE_0)
        within("optim", self, limits)


# Settings of [augment] that are a range, and the least that it may begin with.
_RANGES = {
    "pause_s": 0,
    "pad_s": 0,
    "noise_snr_db": float("-inf"),
    "noise_slope": 0,
    "babble_voices": 1,
    "gain_db": float("-inf"),
    "warp": 0.5,
}


@dataclass(frozen=True, slots=True)
class AugmentConfig:
    """What changes between epochs; nothing before `start_step`.

    What changes lengths is drawn once a batch, so that its rows stay alike and little of it is padding; the rest is
    drawn for each utterance, and for each view of it.

    Attributes:
        views: how often each utterance is in its batch, 1 or 2; `batch_s` is of each view.
        speeds: one is drawn a batch (Ko et al. 2015).
        join_probability, join_longest_s, pause_s: share of the batches whose rows are neighbouring utterances of one
            speaker, as many as fit into a length drawn up to `join_longest_s`, with pauses drawn from a range.
        pad_probability, pad_s: share of the batches with silence or room tone before and after each row, and its range.
        silence_probability: share of the utterances replaced by background noise that has no words.
        lead_frames: silence before every utterance, from the first step on (see `StreamingConfig`).
        room_probability, rooms: share of the utterances heard in a simulated room, and how many rooms there are.
        noise_probability, noise_snr_db: share of the utterances with additive noise, and its range of ratios.
        noise_slope: the noise's density falls by 1/f^slope, 0 white, 2 brown; drawn from this range.
        babble_share, babble_voices: share of the noise that is made of other speakers, and how many (from, to).
        gain_probability, gain_db: share of the utterances whose level is changed, and the range.
        telephone_probability: share sent through a telephone line (8 kHz; mu-law, A-law or linear).
        codec_probability: share coded and decoded by GSM, MP3, Opus or Vorbis, at a low bit rate.
        warp_probability, warp: share of the utterances whose speaker gets another vocal tract, and by how much its
            frequencies change.
        freq_masks, freq_width, time_masks, time_fraction: SpecAugment (Park et al. 2019).
        chunk_start_step, chunk_probability, chunks, left: from this step on, that share of the batches is encoded in
            chunks of one of these sizes (even numbers of 40 ms frames), so that one checkpoint serves files and
            streams; `left` frames before its chunk are seen.
    """

    start_step: int = 800
    views: int = 1
    speeds: tuple[float, ...] = (0.9, 1.0, 1.1)
    join_probability: float = 0.0
    join_longest_s: float = 30.0
    pause_s: tuple[float, float] = (0.2, 1.5)
    pad_probability: float = 0.0
    pad_s: tuple[float, float] = (0.1, 1.5)
    silence_probability: float = 0.0
    lead_frames: int = 0
    room_probability: float = 0.0
    rooms: int = 200
    noise_probability: float = 0.0
    noise_snr_db: tuple[float, float] = (3.0, 25.0)
    noise_slope: tuple[float, float] = (0.0, 2.0)
    babble_share: float = 0.4
    babble_voices: tuple[int, int] = (3, 7)
    gain_probability: float = 0.0
    gain_db: tuple[float, float] = (-20.0, 6.0)
    telephone_probability: float = 0.0
    codec_probability: float = 0.0
    warp_probability: float = 0.0
    warp: tuple[float, float] = (0.9, 1.1)
    freq_masks: int = 2
    freq_width: int = 18
    time_masks: int = 4
    time_fraction: float = 0.05
    chunk_start_step: int = 4_000
    chunk_probability: float = 0.5
    chunks: tuple[int, ...] = (8, 16, 32)
    left: int = 128

    def __post_init__(self) -> None:
        """Raises ValueError that names a share outside 0 to 1, a range that is none, or a size outside its limits."""
        shares = [name for name in self.__slots__ if name.endswith(("_probability", "_share", "_fraction"))]
        counts = ("start_step", "freq_masks", "freq_width", "time_masks", "chunk_start_step", "left", "lead_frames")
        limits = dict.fromkeys(shares, SHARE) | dict.fromkeys(counts, AT_LEAST_0)
        within("augment", self, limits | {"views": (1, 2), "rooms": AT_LEAST_1, "join_longest_s": ABOVE_0})
        for name, least in _RANGES.items():
            value = getattr(self, name)
            if not least <= value[0] <= value[1] <= MOST:
                raise ValueError(f"[augment] {name} is {value}, must be two numbers from {least} to {MOST:g}, in order")
        slowest, fastest = SPEEDS
        if not self.speeds or not all(slowest <= speed <= fastest for speed in self.speeds):
            raise ValueError(
                f"[augment] speeds is {self.speeds}, must be one or more numbers from {slowest:g} to {fastest:g}"
            )
        if not self.chunks or min(self.chunks) < 2 or any(chunk % 2 for chunk in self.chunks):
            raise ValueError(f"[augment] chunks is {self.chunks}, must be one or more even numbers from 2 up")
        for name in ("left", "lead_frames"):
            if getattr(self, name) % 2:
                raise ValueError(f"[augment] {name} is {getattr(self, name)}, must be even")


@dataclass(frozen=True, slots=True)
class BundleConfig:
    """What a bundle gets beside the weights (`python -m training.results`).

    Attributes:
        ngram_order: of the word n-gram estimated on the training transcripts, 2 to 6; 0: none.
        language_model: a KenLM file to take instead.
        like: a bundle's directory, or the name of a model of the package: all its other files and settings are taken,
            language models among them; nothing else then.
        decoding: search settings, as in a bundle's config.json; tuned on `tuning_speakers`.
        lead_frames: silence before the first frame, see `StreamingConfig`: for training data that begins before its
            first words.
    """

    ngram_order: int = 0
    language_model: str = ""
    like: str = ""
    decoding: dict[str, Any] = field(default_factory=dict)
    lead_frames: int = 0

    def __post_init__(self) -> None:
        """Raises ValueError that names what is outside its limits, or says that there are two language models."""
        if self.ngram_order:
            within("bundle", self, {"ngram_order": (MIN_ORDER, MAX_ORDER)})
        if self.ngram_order and self.language_model:
            raise ValueError("[bundle] has both ngram_order and language_model: one of them")
        if self.like and (self.ngram_order or self.language_model or self.decoding or self.lead_frames):
            raise ValueError("[bundle] like takes everything from that bundle: nothing can be beside it")
        DecodingConfig.from_dict(self.decoding)
        if self.lead_frames < 0 or self.lead_frames % 2:
            raise ValueError(f"[bundle] lead_frames is {self.lead_frames}, must be an even number of 40 ms frames")

    @property
    def like_directory(self) -> Path:
        """Where the bundle `like` is."""
        packaged = SHIPPED_DIR / self.like
        return packaged if (packaged / CONFIG_FILE).is_file() else Path(self.like)


@dataclass(frozen=True, slots=True)
class StartConfig:
    """What a stage goes on from (`python -m training.stages`).

    Attributes:
        recipe: name of the recipe beside it whose weights it begins with.
        copies: of these in the mean with those learnt here, which is what it gives (model soups, Wortsman et al. 2022);
            0: what is learnt alone.
    """

    recipe: str = ""
    copies: int = 0

    def __post_init__(self) -> None:
        """Raises ValueError that names a setting outside its limits, or says that no recipe is named."""
        within("start", self, {"copies": (0, 100)})
        if not self.recipe:
            raise ValueError("[start] names no recipe")


@dataclass(frozen=True, slots=True)
class Recipe:
    """The whole run.

    Attributes:
        dtype: of the matrix products: `bfloat16` (autocast), `float32`, or `auto`, the faster on the device.
        start: None: it begins with random weights.
        finetune: of a recipe for `training.finetune`, whose model is that of the bundle it adapts.
    """

    name: str
    seed: int = 1
    dtype: DtypeName = "auto"
    model: TransformerConfig = field(default_factory=TransformerConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    bundle: BundleConfig = field(default_factory=BundleConfig)
    start: StartConfig | None = None
    finetune: FinetuneConfig | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for a seed that torch would not take."""
        if not -MOST_SEED - 1 <= self.seed <= MOST_SEED:
            raise ValueError(f"seed is {self.seed}, must be from {-MOST_SEED - 1} to {MOST_SEED}, 64 bits")


_SECTIONS: dict[str, type] = {
    "data": DataConfig,
    "loss": LossConfig,
    "optim": OptimConfig,
    "augment": AugmentConfig,
    "bundle": BundleConfig,
    "start": StartConfig,
    "finetune": FinetuneConfig,
}


def load_recipe(path: Path) -> Recipe:
    """Read a recipe; raises ValueError that names the file, and the section or setting that is wrong."""
    table = read_table(path)
    try:
        return _recipe(path.stem, table)
    except (ValueError, ConfigError) as error:
        raise ValueError(f"{path}: {error}") from error


def _recipe(name: str, table: dict[str, Any]) -> Recipe:
    tables = {key: value for key, value in table.items() if isinstance(value, dict)}
    if "finetune" in tables:
        if fixed := [key for key in ("model", "bundle", "start") if key in tables]:
            raise ValueError(f"[{fixed[0]}] cannot be in a recipe with [finetune]: it is the bundle's")
        # Nothing but the bundle's lexicon, unless the recipe names another to add to it.
        tables["data"] = {"lexicon": "", **tables.get("data", {})}
    model = dict(tables.pop("model", {}))
    base = preset(of_type("[model] preset", model.pop("preset", "streaming-s"), str))
    values: dict[str, Any] = {"model": dataclasses.replace(base, **typed("model", model, TransformerConfig))}
    for section, settings in _SECTIONS.items():
        if section in tables:
            values[section] = settings(**typed(section, tables.pop(section), settings))
    if tables:
        raise ValueError(f"unknown section [{min(tables)}]; known are {', '.join(['model', *_SECTIONS])}")
    wanted = {"seed": int, "dtype": DtypeName}
    for key, value in table.items():
        if not isinstance(value, dict):
            if key not in wanted:
                raise ValueError(f"unknown setting {key!r}; known outside sections are {', '.join(wanted)}")
            values[key] = of_type(key, value, wanted[key])
    recipe = Recipe(name, **values)
    _check_together(recipe)
    return recipe


def _check_together(recipe: Recipe) -> None:
    """Raises ValueError that names settings that do not fit together or a search, or a file that is not there."""
    # The model alone may be so, but no bundle of it could be searched, which would only show once it is trained.
    if recipe.model.decoder_layers < 1:
        raise ValueError("[model] decoder_layers is 0, must be 1 or more: the search reads the decoder")
    if recipe.model.phone_vocab_size not in (0, PHONE_VOCABULARY_SIZE):
        raise ValueError(
            f"[model] phone_vocab_size is {recipe.model.phone_vocab_size}, must be {PHONE_VOCABULARY_SIZE}, the phones "
            "of the lexicon and blank, or 0, none"
        )
    if not recipe.model.phone_vocab_size and not (recipe.loss.ctc or recipe.loss.attention or recipe.loss.consistency):
        raise ValueError(
            "[loss] ctc, attention and consistency are 0, and [model] phone_vocab_size is 0, so that the others do "
            "nothing: one of the three must be above 0"
        )
    if recipe.loss.consistency and recipe.augment.views != 2:
        raise ValueError(f"[loss] consistency is {recipe.loss.consistency}, but [augment] views is not 2")
    bundle, lead = recipe.bundle, recipe.augment.lead_frames
    if lead and not bundle.like and bundle.lead_frames != lead:
        raise ValueError(
            f"[augment] lead_frames is {lead}, [bundle] lead_frames {bundle.lead_frames}: a model that has only heard "
            "speech after silence must get that silence"
        )
    like_has_n_gram = bundle.like and (bundle.like_directory / LM_FILE).is_file()
    if (bundle.language_model or bundle.ngram_order or like_has_n_gram) and not recipe.model.phone_vocab_size:
        raise ValueError("[model] phone_vocab_size is 0: such a model's search takes no n-gram, and [bundle] has one")
    if bundle.language_model and not Path(bundle.language_model).is_file():
        raise ValueError(f"[bundle] language_model: {bundle.language_model}: no such file")
    if bundle.like and not (bundle.like_directory / CONFIG_FILE).is_file():
        raise ValueError(f"[bundle] like: {bundle.like} is no bundle")
