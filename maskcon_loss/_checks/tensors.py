"""Tensors: kind, dtype, shape, device."""

from typing import Any

import torch
from torch import Tensor

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def vectors(name: str, value: Any) -> None:
    """(rows, features), floating."""
    tensor(name, value)
    if value.dtype not in FLOATS:
        raise TypeError(
            f"`{name}` has dtype {value.dtype}; similarities need float16, bfloat16, float32 or float64. If features "
            f"and labels were swapped, exchange them; else type `{name}.float()`."
        )
    if value.ndim != 2:
        cause = {
            0: f"A mean was taken too early: pass what the encoder gives, `{name} = encoder(images)`.",
            1: f"If it is a single sample, type `{name}.unsqueeze(0)`.",
            3: f"If several views were stacked, put them into one batch: `{name}.flatten(0, 1)`.",
            4: f"If it is a feature map, pool it first: `{name}.mean((2, 3))`.",
        }.get(value.ndim, f"Put the features last and type `{name}.flatten(0, -2)`.")
        raise ValueError(f"`{name}` has shape {shape(value)}; it must be (rows, features). {cause}")
    if value.shape[1] == 0:
        raise ValueError(
            f"`{name}` has shape {shape(value)}, rows without features; at least one is needed. Look for an empty "
            f"slice, and type `{name}[:, :dim]` with a dim above 0."
        )


def integers(name: str, value: Any, rows: int, of: str, like: Tensor) -> None:
    """(rows,), whole numbers, on the device of ``like``."""
    tensor(name, value)
    if value.dtype not in INTEGERS:
        raise TypeError(
            f"`{name}` has dtype {value.dtype}; it must hold whole numbers. If they are whole already, type "
            f"`{name}.long()`; if they are scores of classes, `{name}.argmax(1)`."
        )
    if value.ndim != 1:
        if value.ndim == 2:
            cause = f"For a column type `{name}.squeeze(1)`, for one-hot rows `{name}.argmax(1)`."
        else:
            cause = f"If it holds one number for each row, type `{name}.reshape({rows})`."
        raise ValueError(
            f"`{name}` has shape {shape(value)}; it must be ({rows},), one number for each row of `{of}`. {cause}"
        )
    if value.shape[0] != rows:
        entries = value.shape[0]
        if rows and entries and rows % entries == 0:
            views = rows // entries
            cause = (
                f"{rows} is {views} × {entries}: if {views} views were stacked, repeat them, `{name}.repeat({views})`."
            )
        elif rows and entries % rows == 0:
            cause = f"{entries} is {entries // rows} × {rows}: if one view of several is used, type `{name}[:{rows}]`."
        else:
            cause = f"Take both from the same batch, and cut both where one is cut: `{name}[:{min(rows, entries)}]`."
        raise ValueError(
            f"`{name}` has {entries} entries but `{of}` has {rows} rows; each row needs its own, in the same order. "
            f"{cause}"
        )
    same_device(name, value, of, like)


def same_device(name: str, value: Tensor, of: str, like: Tensor) -> None:
    if value.device != like.device:
        raise ValueError(
            f"`{name}` is on {value.device} but `{of}` is on {like.device}; both must be on one device. One of them "
            f"was not moved: type `{name}.to({of}.device)`."
        )


def tensor(name: str, value: Any) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(
            f"`{name}` is a {type(value).__name__}; it must be a torch.Tensor. A list or a NumPy array is turned into "
            f"one with `torch.as_tensor({name})`."
        )


def shape(value: Tensor) -> str:
    return str(tuple(value.shape))
