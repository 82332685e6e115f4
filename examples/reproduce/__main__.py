"""Train methods of the MaskCon paper and judge them.

    python -m examples.reproduce --data DIR --dataset cifartoy-good --method MaskCon
    python -m examples.reproduce --data DIR --dataset cifartoy-good --method all --preset cpu     # ten minutes, no GPU
    python -m examples.reproduce --data DIR --dataset cifar100 --weight 0.5 0.8 1 --target-temperature 0.05 0.1 \
        --hold-out 5000                                                                             # a sweep

Settings are the paper's for the dataset unless a flag says otherwise. A run that was interrupted goes on where it
stopped when the same command is given again; one that is finished is not repeated. Several values after --method,
--seed, --weight and --target-temperature make a run each.
"""

import argparse
import itertools
from dataclasses import fields, replace
from pathlib import Path

from examples.reproduce.data import load
from examples.reproduce.formats import DataError
from examples.reproduce.machine import Machine
from examples.reproduce.settings import DATASETS, METHODS, PRESETS, Settings, defaults
from examples.reproduce.table import write
from examples.reproduce.train import train

SEVERAL = {"seed": int, "weight": float, "target_temperature": float}


def parser() -> argparse.ArgumentParser:
    """Flags of what to run, of every setting, and of the machine."""
    flags = argparse.ArgumentParser(
        "python -m examples.reproduce", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("--data", type=Path, required=True, help="folder of the data, as their authors distribute them")
    flags.add_argument("--labels", type=Path, help="folder of the paper's label files, for ImageNet32 and SOP")
    flags.add_argument("--out", type=Path, default=Path("runs"), help="folder for the runs (default: runs)")
    flags.add_argument("--preset", choices=PRESETS, default="paper", help="cpu: reduced, not comparable with the paper")
    names = {name.lower(): name for name in METHODS} | {"all": "all"}
    flags.add_argument(
        "--method", nargs="+", default=["MaskCon"], type=lambda text: names.get(text.lower(), text),
        choices=[*METHODS, "all"],
    )  # fmt: skip
    flags.add_argument("--dataset", choices=DATASETS, default="cifar100")
    settings = flags.add_argument_group("settings (default: the paper's for the dataset)")
    for field in fields(Settings):
        if field.name in ("dataset", "method"):
            continue
        flag = "--" + field.name.replace("_", "-")
        if field.name in SEVERAL:
            settings.add_argument(flag, type=SEVERAL[field.name], nargs="+", metavar="X")
        else:
            settings.add_argument(flag, type=type(field.default), metavar=type(field.default).__name__.upper())
    machine = flags.add_argument_group("machine")
    machine.add_argument("--device", default="auto")
    machine.add_argument("--amp", default="auto", choices=["auto", "bf16", "fp16", "none"])
    machine.add_argument("--compile", action="store_true", help="compile the encoders")
    machine.add_argument("--contiguous", action="store_true", help="do not use channels-last")
    machine.add_argument("--profile", action="store_true", help="report the share of time of every part")
    machine.add_argument("--threads", type=int, default=0, help="of the CPU (default: as torch chooses)")
    machine.add_argument("--stop-after", type=int, default=0, metavar="N", help="stop each run after N epochs more")
    return flags


def runs(arguments: argparse.Namespace) -> list[Settings]:
    """The settings of every run that was asked for, seed by seed."""
    given = {
        field.name: getattr(arguments, field.name)
        for field in fields(Settings)
        if field.name not in (*SEVERAL, "dataset", "method") and getattr(arguments, field.name) is not None
    }
    methods = METHODS if "all" in arguments.method else arguments.method
    wanted: dict[tuple[str, str], Settings] = {}
    for seed, method in itertools.product(arguments.seed or [0], methods):
        usual = defaults(arguments.dataset, method, arguments.preset)
        mixes = method in ("Grafit", "CoIns", "MaskCon")
        weights = arguments.weight if mixes and arguments.weight else [usual.weight]
        swept = method == "MaskCon" and arguments.target_temperature
        for weight, target in itertools.product(weights, swept or [usual.target_temperature]):
            settings = replace(usual, **given, seed=seed, weight=weight, target_temperature=target)
            wanted[settings.dataset, settings.name] = settings
    return list(wanted.values())


def main() -> None:
    flags = parser()
    arguments = flags.parse_args()
    try:
        machine = Machine(
            device=arguments.device, amp=arguments.amp, channels_last=not arguments.contiguous,
            compile=arguments.compile, profile=arguments.profile, threads=arguments.threads,
        )  # fmt: skip
        wanted = runs(arguments)
        data, test = load(wanted[0], arguments.data, arguments.labels)
        for settings in wanted:
            result = train(settings, machine, data, test, arguments.out, stop_after=arguments.stop_after)
            if result is None:
                print(f"{settings.name}: stopped; the same command goes on.")
                continue
            recall = ", ".join(f"R@{depth} {value:.2f}" for depth, value in result["recall"].items())
            shares = "".join(f", {part} {share:.0%}" for part, share in result["shares"].items())
            print(f"{settings.name}: {recall}; {result['images_per_s']:.0f} images/s{shares}")
        print(write(arguments.out))
    except (DataError, ValueError, FileNotFoundError) as error:
        flags.exit(2, f"{error}\n")


if __name__ == "__main__":
    main()
