"""Tensors: kind, dtype, shape, device.

`name` is what a sentence calls a tensor, and `code` what it writes where the reader types: the name, if not told.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskcon_loss._checks.settings import kind

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
MOST_VIEWS = 16  # a larger multiple is no number of views


def vectors(name: str, value: Any, code: str | None = None) -> None:
    """(rows, features), floating."""
    code = code or name
    tensor(name, value)
    if value.dtype not in FLOATS:
        if value.dtype in INTEGERS and value.ndim == 1:
            cause = "If labels came in the place of features, exchange the two."
        elif value.is_complex():
            cause = f"Type `torch.view_as_real({code}).flatten(1)`."
        else:
            cause = f"Type `{code}.float()`."
        raise TypeError(
            f"`{name}` has dtype {value.dtype}; similarities need float16, bfloat16, float32 or float64. {cause}"
        )
    if value.ndim != 2:
        if value.ndim == 0:
            cause = f"Pass the features before any mean or sum over them: `{name} = encoder(images)`."
        elif value.ndim == 1:
            cause = f"If it is a single sample, type `{code}.unsqueeze(0)`."
        elif value.ndim == 3:
            cause = (
                f"If several views were stacked, make them one batch, `{code}.flatten(0, 1)`; of tokens take the mean, "
                f"`{code}.mean(1)`."
            )
        else:
            cause = f"If it is a feature map, pool it first: `{code}.flatten(2).mean(2)`."
        raise ValueError(f"`{name}` has shape {shape(value)}; it must be (rows, features). {cause}")
    if value.shape[1] == 0:
        raise ValueError(
            f"`{name}` has shape {shape(value)}, rows without features; at least one is needed. If it was cut, look at "
            f"where: `{name} = features[:, :dim]` needs a `dim` above 0."
        )


def integers(name: str, value: Any, rows: int, of: str, like: Tensor, code: str | None = None) -> None:
    """(rows,), whole numbers, on the device of ``like``."""
    code = code or name
    tensor(name, value)
    if value.dtype not in INTEGERS:
        if value.ndim == 2 and value.shape[1] > 1:
            cause = f"If its rows are scores or one-hot, type `{code}.float().argmax(1)`."
        else:
            cause = f"If they are whole already, type `{code}.long()`."
        raise TypeError(
            f"`{name}` has dtype {value.dtype}; whole numbers are needed: int64, int32, int16, int8 or uint8. {cause}"
        )
    if value.ndim != 1:
        if value.numel() == rows:
            cause = f"It holds that many: type `{code}.reshape({rows})`."
        elif value.ndim == 0:
            cause = f"If all rows share it, type `{code}.repeat({rows})`."
        elif value.shape[0] == rows:
            cause = (
                f"If its rows are one-hot, type `{code}.argmax(1)`; of several numbers for a row take one, "
                f"`{code}.flatten(1)[:, 0]`."
            )
        else:
            cause = f"If they are those of a whole data set, pick these rows: `{code}.flatten()[indices]`."
        raise ValueError(
            f"`{name}` has shape {shape(value)}; it must be ({rows},), one number for each row of `{of}`. {cause}"
        )
    if value.shape[0] != rows:
        raise ValueError(
            f"`{name}` has {value.shape[0]} entries but `{of}` has {rows} rows; each row needs its own, in the same "
            f"order. {_why_not_as_many(code, value.shape[0], of, rows)}"
        )
    same_device(name, value, of, like, code)


def _why_not_as_many(code: str, entries: int, of: str, rows: int) -> str:
    if entries and rows % entries == 0 and 1 < (views := rows // entries) <= MOST_VIEWS:
        return f"{rows} is {views} × {entries}: if {views} views were stacked, repeat them, `{code}.repeat({views})`."
    if rows and entries % rows == 0 and 1 < (views := entries // rows) <= MOST_VIEWS:
        return f"{entries} is {views} × {rows}: if one view of {views} is used, type `{code}[:{rows}]`."
    if entries > rows:
        return f"If they are those of a whole data set, pick these rows: `{code}[indices]`."
    return f"Pass those of the same batch, and where one is cut, cut both: `{of}[:n]` and `{code}[:n]`."


def same_device(name: str, value: Tensor, of: str, like: Tensor, code: str | None = None) -> None:
    if value.device != like.device:
        raise ValueError(
            f"`{name}` is on {value.device} but `{of}` is on {like.device}; both must be on one device. One of them "
            f"was not moved: type `{code or name}.to({of}.device)`."
        )


def tensor(name: str, value: Any, needed: str = "a torch.Tensor") -> None:
    """A tensor, and a plain one."""
    if not isinstance(value, Tensor):
        what = "None" if value is None else f"of type {kind(value)}"
        raise TypeError(f"`{name}` is {what}; it must be {needed}. {_how_to_make_a_tensor(name, value)}")
    if value.is_nested:
        raise TypeError(
            f"`{name}` is a nested tensor; it must be a plain one. If its parts are batches, type "
            f"`torch.cat({name}.unbind())`."
        )
    if value.layout != torch.strided:
        raise TypeError(
            f"`{name}` has the layout {value.layout}; it must be a plain, dense tensor. Type `{name}.to_dense()`."
        )


def _how_to_make_a_tensor(name: str, value: Any) -> str:
    if value is None:
        return "If a function made it, look whether it ends with `return`."
    first = next(iter(value), None) if isinstance(value, (list, tuple)) else None
    if isinstance(first, Tensor):
        return (
            f"Join rows with `torch.stack({name})` and batches with `torch.cat({name})`; of several outputs of a model "
            f"take one, `{name}[0]`."
        )
    if isinstance(first, str) or (isinstance(value, np.ndarray) and value.dtype.kind in "OSU"):
        return f"Number them by one list of all names: `torch.tensor([names.index(name) for name in {name}])`."
    if isinstance(value, (list, tuple, np.ndarray, int, float)):
        return f"Type `torch.as_tensor({name})`."
    if hasattr(value, "__array__"):
        return f"Type `torch.as_tensor(np.asarray({name}))`."
    return "Look at the order of the arguments; where an object holds the tensor, pass the tensor itself."


def shape(value: Tensor) -> str:
    return str(tuple(value.shape))
