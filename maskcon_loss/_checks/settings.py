"""Settings: plain numbers, flags and names."""

import math
from typing import Any

from torch import Tensor

IMPLEMENTATIONS = ("auto", "dense", "streamed", "triton")
REDUCTIONS = ("mean", "sum", "none")
SMALLEST_TEMPERATURE = 1e-12  # below, float32 may overflow


def settings(
    reduction: str,
    normalize: bool,
    impl: str,
    weight: float = 1.0,
    temperature: float = 0.1,
    target_temperature: float = 0.05,
) -> None:
    """The settings of a loss, at construction and at each call."""
    number("weight", weight)
    if not 0.0 <= weight <= 1.0:
        raise ValueError(
            f"`weight` is {weight}; it shares the positives between the own key (0) and the coarse class (1) and must "
            "lie in [0, 1]. A percentage is divided by 100: `weight=0.8`."
        )
    number("temperature", temperature)
    if not SMALLEST_TEMPERATURE <= temperature < math.inf:
        raise ValueError(
            f"`temperature` is {temperature}; similarities are divided by it, so it must be finite and at least "
            f"{SMALLEST_TEMPERATURE}. If it is the inverse that is known, divide; the paper's is `temperature=0.1`."
        )
    number("target_temperature", target_temperature)
    if not target_temperature >= SMALLEST_TEMPERATURE:
        raise ValueError(
            f"`target_temperature` is {target_temperature}; similarities are divided by it, so it must be at least "
            f"{SMALLEST_TEMPERATURE}. If only the nearest key is to count, type `target_temperature=1e-3`; for equal "
            "shares `target_temperature=math.inf`."
        )
    choice("reduction", reduction, REDUCTIONS)
    flag("normalize", normalize)
    choice("impl", impl, IMPLEMENTATIONS)
    if impl == "triton":
        raise ValueError(
            '`impl="triton"` has no kernels in this version, and an implementation that is asked for by name is never '
            'replaced by another. Type `impl="streamed"`, which runs on CUDA too, or `impl="auto"`.'
        )


def number(name: str, value: Any) -> None:
    if isinstance(value, Tensor):
        raise TypeError(
            f"`{name}` is a tensor; it must be a Python number, because settings are no learned parameters here. Type "
            f"`{name}=float(value)`."
        )
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(
            f"`{name}` is {value!r}, of type {type(value).__name__}; it must be a Python number. If it was read from a "
            f"file or a command line, type `{name}=float(value)`."
        )


def flag(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise TypeError(
            f"`{name}` is {value!r}, of type {type(value).__name__}; it must be True or False. The settings after the "
            f"first are passed by name: `{name}=True`."
        )


def choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        listed = ", ".join(f'"{each}"' for each in choices)
        raise ValueError(
            f'`{name}` is {value!r}; it must be one of {listed}, in lower case. The default is `{name}="{choices[0]}"`.'
        )


def positive_integer(name: str, value: Any, meaning: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise (ValueError if isinstance(value, int) else TypeError)(
            f"`{name}` is {value!r}; it is {meaning} and must be a whole number, 1 or more. If it was computed, type "
            f"`{name}=int(value)`."
        )
