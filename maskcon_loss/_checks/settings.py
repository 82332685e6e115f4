"""Settings: plain numbers, flags and names."""

import reprlib
from typing import Any

from torch import Tensor

IMPLEMENTATIONS = ("auto", "dense", "streamed", "triton")
REDUCTIONS = ("mean", "sum", "none")
SMALLEST_TEMPERATURE, LARGEST_TEMPERATURE = 1e-12, 1e12  # beyond, float32 may overflow


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
        if 2.0 <= weight <= 100.0:
            cause = f"If it is a percentage, type `weight={weight / 100:g}`."
        else:
            cause = "If a schedule computed it, keep it inside: `weight=min(1.0, max(0.0, value))`."
        raise ValueError(
            f"`weight` is {weight}; it says how much the coarse labels count and must lie in [0, 1]. {cause}"
        )
    number("temperature", temperature)
    if not SMALLEST_TEMPERATURE <= temperature <= LARGEST_TEMPERATURE:
        raise ValueError(
            f"`temperature` is {temperature}; similarities are divided by it, so it must lie between "
            f"{SMALLEST_TEMPERATURE:g} and {LARGEST_TEMPERATURE:g}. The paper's is `temperature=0.1`; a schedule that "
            "lowers it must stop above 0."
        )
    number("target_temperature", target_temperature)
    if not target_temperature >= SMALLEST_TEMPERATURE:
        raise ValueError(
            f"`target_temperature` is {target_temperature}; similarities are divided by it, so it must be at least "
            f"{SMALLEST_TEMPERATURE:g}. If only the nearest key is to count, type `target_temperature=1e-3`; for equal "
            "shares `target_temperature=math.inf`."
        )
    choice("reduction", reduction, REDUCTIONS)
    flag("normalize", normalize)
    choice("impl", impl, IMPLEMENTATIONS)


def number(name: str, value: Any) -> None:
    if isinstance(value, Tensor):
        raise TypeError(
            f"`{name}` is a tensor; it must be a Python number, because a loss does not learn its settings. Type "
            f"`{name}=value.item()`."
        )
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        if convertible(value):
            cause = f"If it was read or computed, type `{name}=float(value)`."
        else:
            cause = "Type the number itself, or leave the argument out for its default."
        raise TypeError(f"`{name}` is {described(value)}; it must be a Python number. {cause}")


def flag(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        if isinstance(value, str):
            cause = f"If it was read from a file or a command line, type `{name}=value.lower() == 'true'`."
        else:
            cause = f"The default is `{name}=True`; if it was computed, type `{name}=bool(value)`."
        raise TypeError(f"`{name}` is {described(value)}; it must be True or False. {cause}")


def choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in choices:
        listed = ", ".join(f'"{each}"' for each in choices)
        meant = value.strip().lower() if isinstance(value, str) else ""
        cause = f'Type `{name}="{meant}"`.' if meant in choices else f'The default is `{name}="{choices[0]}"`.'
        raise (ValueError if isinstance(value, str) else TypeError)(
            f"`{name}` is {reprlib.repr(value)}; it must be one of {listed}. {cause}"
        )


def positive_integer(name: str, value: Any, meaning: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        if convertible(value):
            cause = f"If it was read or computed, type `{name}=int(value)`."
        else:
            cause = f"Type one, such as `{name}=1024`."
        raise TypeError(f"`{name}` is {described(value)}; it is {meaning} and must be a whole number. {cause}")
    if value < 1:
        raise ValueError(
            f"`{name}` is {value}; it is {meaning} and must be 1 or more. If it was computed, type "
            f"`{name}=max(1, value)`."
        )


def described(value: Any) -> str:
    """The value, shortened where it is long, and its type."""
    return "None" if value is None else f"{reprlib.repr(value)}, of type {kind(value)}"


def kind(value: Any) -> str:
    """The name of a value's type; NumPy has a `bool` and a `str` of its own."""
    name = type(value).__name__
    return f"numpy.{name}" if type(value).__module__ == "numpy" else name


def convertible(value: Any) -> bool:
    """Whether `float(value)` and `int(value)` are worth advising: text, and numbers of other libraries."""
    return isinstance(value, str) or (hasattr(value, "__float__") and not isinstance(value, bool))
