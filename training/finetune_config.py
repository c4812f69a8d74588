"""The [finetune] section of a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from training.recipe_values import ABOVE_0, AT_LEAST_0, AT_LEAST_1, within


@dataclass(frozen=True, slots=True)
class FinetuneConfig:
    """How a bundle is adapted (`python -m training.finetune`); its target is what `data` says.

    Attributes:
        method: `full` trains all weights, `lora` low-rank adapters beside some linear layers (Hu et al. 2021).
        rank, alpha: of the adapters, W·x + (alpha/rank)·B·A·x.
        targets: own names of the linear layers that get one: those of attention and feed-forward.
        freeze: `full` leaves weights alone whose names start so, such as `encoder.stem`.
        tokenizer: the one the texts were prepared for, refused unless it is the bundle's; empty: the bundle's.
        old_manifest, old_corpora: what the base was trained on, mixed in against forgetting.
        old_share: of the seconds trained on, how many are old data.
        old_dev_manifest, old_dev_corpora: where forgetting is looked for.
        look_every, look_utterances: updates between looks at both dev sets, and how many utterances of each; 0: all.
        report_utterances: of each dev set, for the comparison of base and result; 0: all.
        forgetting_limit: by how much the word error rate on old dev may rise, 0.02 is two points.
        on_forgetting: `stop` the run at the first look above that, or `warn` and go on.
        drop_unwritable: leave out utterances with characters the tokenizer cannot write instead of refusing to start.
    """

    method: Literal["full", "lora"] = "lora"
    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = ("q_proj", "kv_proj", "out_proj", "linear1", "linear2")
    freeze: tuple[str, ...] = ()
    tokenizer: str = ""
    old_manifest: str = "train.jsonl"
    old_corpora: tuple[str, ...] = ()
    old_share: float = 0.3
    old_dev_manifest: str = "dev.jsonl"
    old_dev_corpora: tuple[str, ...] = ()
    look_every: int = 100
    look_utterances: int = 100
    report_utterances: int = 0
    forgetting_limit: float = 0.02
    on_forgetting: Literal["stop", "warn"] = "warn"
    drop_unwritable: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError that names a setting outside its limits, or one that the method does not have."""
        counts = ("look_utterances", "report_utterances", "forgetting_limit")
        limits = {"rank": (1, 1024), "alpha": ABOVE_0, "look_every": AT_LEAST_1} | dict.fromkeys(counts, AT_LEAST_0)
        within("finetune", self, limits)
        if not 0.0 <= self.old_share < 1.0:
            raise ValueError(f"[finetune] old_share is {self.old_share}, must be 0 or more and below 1")
        if self.method == "lora" and not self.targets:
            raise ValueError("[finetune] targets is empty, must name one layer or more: nothing else learns by 'lora'")
        if self.method == "lora" and self.freeze:
            raise ValueError("[finetune] freeze is for the method 'full': adapters leave all weights alone")
