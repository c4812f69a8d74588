"""Make a bundle from a run: `python -m training.export --run runs/NAME --out DIR`.

The weights are the exponential moving average of the newest checkpoint; with `--average N`, the mean of the averages
of the last N.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from asr_service.features import FeatureConfig
from asr_service.lexicon import Lexicon
from asr_service.model.bundle import CONFIG_FILE, StreamingConfig, save_bundle
from asr_service.model.config import TransformerConfig
from asr_service.tokenizer import WordPieces
from training.checkpoint import load_checkpoint


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder of checkpoints")
    parser.add_argument("--out", type=Path, required=True, help="bundle directory")
    parser.add_argument("--name", default="en-s")
    parser.add_argument("--lexicon", type=Path, default=Path("runs/lexicon/lexicon.txt.gz"))
    parser.add_argument("--average", type=int, default=1, help="checkpoints whose weights are averaged")
    arguments = parser.parse_args(argv)
    paths = sorted(arguments.run.glob("step-*.pt"))[-arguments.average :]
    if not paths:
        raise SystemExit(f"{arguments.run}: no checkpoint there")
    states = [load_checkpoint(path) for path in paths]
    weights = {
        name: sum(state["average"][name].float() for state in states) / len(states) for name in states[-1]["average"]
    }
    config = TransformerConfig.from_dict(states[-1]["model_config"])
    # Search weights are tuned after training and belong to the bundle: exporting again keeps them.
    previous = arguments.out / CONFIG_FILE
    decoding = json.loads(previous.read_text())["decoding"] if previous.exists() else {}
    save_bundle(
        arguments.out,
        name=arguments.name,
        weights=weights,
        mean=states[-1]["cmvn"]["mean"],
        std=states[-1]["cmvn"]["std"],
        model_config=config,
        feature_config=FeatureConfig(n_mels=config.n_mels),
        streaming=StreamingConfig(),
        decoding=decoding,
        pieces=WordPieces.load(arguments.run / "tokenizer.json"),
        lexicon=Lexicon.load(arguments.lexicon) if config.phone_vocab_size else None,
    )
    print(f"{arguments.out}: weights of {', '.join(path.name for path in paths)}")


if __name__ == "__main__":
    main()
