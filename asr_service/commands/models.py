"""`asr models show [PRESET|DIR]`: what a model is made of."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any


def register(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "models",
        help="presets and bundles: shapes and parameters",
        description="Lists the presets and bundles there are, and shows what one of them is made of.",
    )
    actions = parser.add_subparsers(dest="action", required=True)
    show = actions.add_parser("show", help="parameters of each part, and every tensor's shape")
    show.add_argument("model", nargs="?", metavar="PRESET|DIR", help="default: the shipped model")
    show.set_defaults(run=run_show)
    actions.add_parser("list", help="presets, and the bundles in the package").set_defaults(run=run_list)


def run_list(arguments: argparse.Namespace) -> int:  # noqa: ARG001
    from asr_service.model.bundle import CONFIG_FILE, SHIPPED_DIR
    from asr_service.model.config import PRESETS

    for name in PRESETS:
        print(f"preset {name}")
    for path in sorted(SHIPPED_DIR.glob(f"*/{CONFIG_FILE}")):
        print(f"bundle {path.parent}")
    return 0


def run_show(arguments: argparse.Namespace) -> int:
    from asr_service.errors import ConfigError
    from asr_service.model.bundle import DEFAULT_MODEL, SHIPPED_DIR, load_bundle
    from asr_service.model.config import PRESETS
    from asr_service.model.transformer import Transformer

    if arguments.model in PRESETS:
        config = PRESETS[arguments.model]
        model, neural_lm = Transformer(config), None
        print(f"preset {arguments.model}")
    elif arguments.model and not Path(arguments.model).is_dir():
        raise ConfigError(f"{arguments.model!r} is neither a preset ({', '.join(PRESETS)}) nor a bundle directory")
    else:
        bundle = load_bundle(Path(arguments.model) if arguments.model else SHIPPED_DIR / DEFAULT_MODEL)
        model, config, neural_lm = bundle.model, bundle.model.config, bundle.neural_lm
        print(f"bundle {bundle.name} ({bundle.language}) in {bundle.directory}")
        for file in sorted(bundle.directory.iterdir()):
            print(f"  {file.name}: {_size(file.stat().st_size)}")
    print("  " + ", ".join(f"{name}={value}" for name, value in config.to_dict().items()))
    print(f"  frames: 10 ms in, {config.subsampling * 10} ms phones, {config.output_subsampling * 10} ms word pieces")
    print()
    parts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        part = part_of(name)
        parts[part] = parts.get(part, 0) + parameter.numel()
    for part, count in parts.items():
        print(f"{part:<32} {count:>12,}")
    print(f"{'all':<32} {sum(parts.values()):>12,}")
    if neural_lm is not None:
        count = sum(parameter.numel() for parameter in neural_lm[0].parameters())
        shape = ", ".join(f"{name}={value}" for name, value in asdict(neural_lm[0].config).items())
        print(f"{'neural language model':<32} {count:>12,}  {shape}")
    print()
    for name, parameter in model.named_parameters():
        print(f"{name:<56} {' x '.join(map(str, parameter.shape)):<20} {parameter.numel():>12,}")
    return 0


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.2f} MB" if size_bytes >= 1e6 else f"{size_bytes / 1e3:.1f} kB"


def part_of(parameter_name: str) -> str:
    """Where a parameter belongs: `encoder.blocks`, `encoder.stem`, `decoder.embedding`, `ctc_head` and so on."""
    names = parameter_name.split(".")
    return ".".join(names[:2]) if names[0] in {"encoder", "decoder"} else names[0]
