"""What is said about a wrong tensor, whichever call it came to; and that no sentence of the package goes untested."""

import ast
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from checks import (
    test_diagnostics,
    test_implementation,
    test_loss,
    test_queue,
    test_ranks,
    test_recall,
    test_settings,
)
from instruments import error_of
from torch import Tensor

from maskcon_loss import CoarseMaskSoftTargets, CoInsLoss, MaskConLoss, MemoryQueue, _checks, functional, recall_at_k

B, D, K = 6, 4, 8
G = torch.Generator().manual_seed(0)
QUERY, KEY, MEMORY = (torch.randn(rows, D, generator=G) for rows in (B, B, K))
LABELS, MEMORY_LABELS, SCORES = torch.arange(B) % 2, torch.arange(K) % 2, torch.zeros(B, 2)
COLLECTED = [QUERY[:4], QUERY[4:]]

#: The public call that takes each argument.
CALLS: dict[str, Callable[[object], object]] = {
    "query": lambda value: MaskConLoss()(value, KEY, LABELS),
    "key": lambda value: MaskConLoss()(QUERY, value, LABELS),
    "coarse_labels": lambda value: MaskConLoss()(QUERY, KEY, value),
    "sample_ids": lambda value: MaskConLoss()(QUERY, KEY, LABELS, MemoryQueue(K, D), sample_ids=value),
    "logits": lambda value: CoInsLoss()(QUERY, KEY, LABELS, logits=value),
    "memory_keys": lambda value: functional.maskcon(QUERY, KEY, LABELS, value, MEMORY_LABELS),
    "memory_labels": lambda value: functional.maskcon(QUERY, KEY, LABELS, MEMORY, value),
    "memory_ids": lambda value: functional.maskcon(QUERY, KEY, LABELS, MEMORY, MEMORY_LABELS, memory_ids=value),
    "queue.ids": lambda value: MaskConLoss()(
        QUERY, KEY, LABELS, SimpleNamespace(keys=MEMORY, labels=MEMORY_LABELS, ids=value)
    ),
    "key of targets": lambda value: CoarseMaskSoftTargets()(value, LABELS),
    "coarse_labels of targets": lambda value: CoarseMaskSoftTargets()(KEY, value),
    "keys": lambda value: MemoryQueue(K, D).enqueue(value, LABELS),
    "coarse_labels of enqueue": lambda value: MemoryQueue(K, D).enqueue(KEY, value),
    "embeddings": lambda value: recall_at_k(value, LABELS, k=1),
    "labels": lambda value: recall_at_k(QUERY, value, k=1),
    "gallery": lambda value: recall_at_k(QUERY, LABELS, k=1, gallery=value, gallery_labels=MEMORY_LABELS),
    "gallery_labels": lambda value: recall_at_k(QUERY, LABELS, k=1, gallery=MEMORY, gallery_labels=value),
}


def array_like(value: Tensor) -> object:
    """Something that NumPy can read, as a column of a table."""
    return type("Series", (), {"__array__": lambda self, dtype=None, copy=None: value.numpy()})()


def nested(parts: list[Tensor]) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls them a prototype
        return torch.nested.nested_tensor(parts)


NO_TENSOR = {  # (argument, what is passed, the sentence)
    "None": (
        "query",
        None,
        "`query` is None; it must be a torch.Tensor. If a function made it, look whether it ends with `return`.",
    ),
    "a list": (
        "coarse_labels",
        LABELS.tolist(),
        "`coarse_labels` is of type list; it must be a torch.Tensor. Type `torch.as_tensor(coarse_labels)`.",
    ),
    "a number": (
        "coarse_labels of enqueue",
        1,
        "`coarse_labels` is of type int; it must be a torch.Tensor. Type `torch.as_tensor(coarse_labels)`.",
    ),
    "an array": (
        "keys",
        KEY.numpy(),
        "`keys` is of type numpy.ndarray; it must be a torch.Tensor. Type `torch.as_tensor(keys)`.",
    ),
    "a column of a table": (
        "sample_ids",
        array_like(LABELS),
        "`sample_ids` is of type Series; it must be a torch.Tensor. Type `torch.as_tensor(np.asarray(sample_ids))`.",
    ),
    "a list of rows": (
        "key",
        list(KEY),
        "`key` is of type list; it must be a torch.Tensor. Join rows with `torch.stack(key)` and batches with "
        "`torch.cat(key)`; of several outputs of a model take one, `key[0]`.",
    ),
    "several outputs": (
        "logits",
        (SCORES, KEY),
        "`logits` is of type tuple; it must be a torch.Tensor. Join rows with `torch.stack(logits)` and batches with "
        "`torch.cat(logits)`; of several outputs of a model take one, `logits[0]`.",
    ),
    "collected batches": (
        "embeddings",
        COLLECTED,
        "`embeddings` is of type list; it must be a torch.Tensor or a NumPy array. Join rows with "
        "`torch.stack(embeddings)` and batches with `torch.cat(embeddings)`; of several outputs of a model take one, "
        "`embeddings[0]`.",
    ),
    "a list of names": (
        "labels",
        ["cat", "dog"] * 3,
        "`labels` is of type list; it must be a torch.Tensor or a NumPy array. Number them by one list of all names: "
        "`torch.tensor([names.index(name) for name in labels])`.",
    ),
    "an array of names": (
        "coarse_labels of targets",
        np.array(["cat", "dog"] * 3),
        "`coarse_labels` is of type numpy.ndarray; it must be a torch.Tensor. Number them by one list of all names: "
        "`torch.tensor([names.index(name) for name in coarse_labels])`.",
    ),
    "the output of a model": (
        "key of targets",
        {"features": KEY},
        "`key` is of type dict; it must be a torch.Tensor. Look at the order of the arguments; where an object holds "
        "the tensor, pass the tensor itself.",
    ),
    "ids of a queue": (
        "queue.ids",
        MEMORY_LABELS.tolist(),
        "`queue.ids` is of type list; it must be a torch.Tensor. Type `torch.as_tensor(queue.ids)`.",
    ),
    "nested": (
        "query",
        nested([QUERY[:2], QUERY[2:]]),
        "`query` is a nested tensor; it must be a plain one. If its parts are batches, type "
        "`torch.cat(query.unbind())`.",
    ),
    "sparse": (
        "memory_keys",
        MEMORY.to_sparse(),
        "`memory_keys` has the layout torch.sparse_coo; it must be a plain, dense tensor. Type "
        "`memory_keys.to_dense()`.",
    ),
}
WRONG_DTYPE = {
    "labels for features": (
        "key",
        LABELS,
        "`key` has dtype torch.int64; similarities need float16, bfloat16, float32 or float64. If labels came in the "
        "place of features, exchange the two.",
    ),
    "whole features": (
        "query",
        QUERY.int(),
        "`query` has dtype torch.int32; similarities need float16, bfloat16, float32 or float64. Type `query.float()`.",
    ),
    "float8 features": (
        "keys",
        KEY.to(torch.float8_e4m3fn),
        "`keys` has dtype torch.float8_e4m3fn; similarities need float16, bfloat16, float32 or float64. Type "
        "`keys.float()`.",
    ),
    "complex features": (
        "memory_keys",
        torch.complex(MEMORY[:, :2], MEMORY[:, 2:]),
        "`memory_keys` has dtype torch.complex64; similarities need float16, bfloat16, float32 or float64. Type "
        "`torch.view_as_real(memory_keys).flatten(1)`.",
    ),
    "float labels": (
        "coarse_labels",
        LABELS.float(),
        "`coarse_labels` has dtype torch.float32; whole numbers are needed: int64, int32, int16, int8 or uint8. If "
        "they are whole already, type `coarse_labels.long()`.",
    ),
    "bool labels": (
        "coarse_labels of enqueue",
        LABELS.bool(),
        "`coarse_labels` has dtype torch.bool; whole numbers are needed: int64, int32, int16, int8 or uint8. If they "
        "are whole already, type `coarse_labels.long()`.",
    ),
    "unsigned ids": (
        "sample_ids",
        LABELS.to(torch.uint64),
        "`sample_ids` has dtype torch.uint64; whole numbers are needed: int64, int32, int16, int8 or uint8. If they "
        "are whole already, type `sample_ids.long()`.",
    ),
    "a float column": (
        "memory_labels",
        MEMORY_LABELS.float().unsqueeze(1),
        "`memory_labels` has dtype torch.float32; whole numbers are needed: int64, int32, int16, int8 or uint8. If "
        "they are whole already, type `memory_labels.long()`.",
    ),
    "scores for labels": (
        "coarse_labels of targets",
        F.one_hot(LABELS).bool(),
        "`coarse_labels` has dtype torch.bool; whole numbers are needed: int64, int32, int16, int8 or uint8. If its "
        "rows are scores or one-hot, type `coarse_labels.float().argmax(1)`.",
    ),
}
WRONG_SHAPE = {
    "features, 0-D": (
        "query",
        QUERY.mean(),
        "`query` has shape (); it must be (rows, features). Pass the features before any mean or sum over them: "
        "`query = encoder(images)`.",
    ),
    "features, 1-D": (
        "key",
        KEY[0],
        "`key` has shape (4,); it must be (rows, features). If it is a single sample, type `key.unsqueeze(0)`.",
    ),
    "features, 3-D": (
        "query",
        QUERY.unflatten(0, (2, 3)),
        "`query` has shape (2, 3, 4); it must be (rows, features). If several views were stacked, make them one batch, "
        "`query.flatten(0, 1)`; of tokens take the mean, `query.mean(1)`.",
    ),
    "features, 4-D": (
        "keys",
        KEY[:, :, None, None].expand(B, D, 2, 2),
        "`keys` has shape (6, 4, 2, 2); it must be (rows, features). If it is a feature map, pool it first: "
        "`keys.flatten(2).mean(2)`.",
    ),
    "features, 5-D": (
        "memory_keys",
        MEMORY[:, :, None, None, None],
        "`memory_keys` has shape (8, 4, 1, 1, 1); it must be (rows, features). If it is a feature map, pool it first: "
        "`memory_keys.flatten(2).mean(2)`.",
    ),
    "features of width 0": (
        "gallery",
        MEMORY[:, :0],
        "`gallery` has shape (8, 0), rows without features; at least one is needed. If it was cut, look at where: "
        "`gallery = features[:, :dim]` needs a `dim` above 0.",
    ),
    "features of recall, 1-D": (
        "embeddings",
        QUERY[0].numpy(),
        "`embeddings` has shape (4,); it must be (rows, features). If it is a single sample, type "
        "`torch.as_tensor(embeddings).unsqueeze(0)`.",
    ),
    "labels, 0-D": (
        "coarse_labels",
        LABELS[0],
        "`coarse_labels` has shape (); it must be (6,), one number for each row of `query`. If all rows share it, type "
        "`coarse_labels.repeat(6)`.",
    ),
    "labels, a column": (
        "coarse_labels of targets",
        LABELS.unsqueeze(1),
        "`coarse_labels` has shape (6, 1); it must be (6,), one number for each row of `key`. It holds that many: type "
        "`coarse_labels.reshape(6)`.",
    ),
    "labels, a row": (
        "sample_ids",
        LABELS.unsqueeze(0),
        "`sample_ids` has shape (1, 6); it must be (6,), one number for each row of `query`. It holds that many: type "
        "`sample_ids.reshape(6)`.",
    ),
    "labels, by views": (
        "coarse_labels of enqueue",
        LABELS.view(3, 2),
        "`coarse_labels` has shape (3, 2); it must be (6,), one number for each row of `keys`. It holds that many: "
        "type `coarse_labels.reshape(6)`.",
    ),
    "labels, one-hot": (
        "memory_labels",
        F.one_hot(MEMORY_LABELS),
        "`memory_labels` has shape (8, 2); it must be (8,), one number for each row of `memory_keys`. If its rows are "
        "one-hot, type `memory_labels.argmax(1)`; of several numbers for a row take one, "
        "`memory_labels.flatten(1)[:, 0]`.",
    ),
    "labels, of a whole table": (
        "labels",
        torch.zeros(100, 1, dtype=torch.int64).numpy(),
        "`labels` has shape (100, 1); it must be (6,), one number for each row of `embeddings`. If they are those of a "
        "whole data set, pick these rows: `torch.as_tensor(labels).flatten()[indices]`.",
    ),
    "labels, a divisor": (
        "coarse_labels",
        LABELS[:3],
        "`coarse_labels` has 3 entries but `query` has 6 rows; each row needs its own, in the same order. 6 is 2 × 3: "
        "if 2 views were stacked, repeat them, `coarse_labels.repeat(2)`.",
    ),
    "labels of recall, a divisor": (
        "labels",
        LABELS[:3].numpy(),
        "`labels` has 3 entries but `embeddings` has 6 rows; each row needs its own, in the same order. 6 is 2 × 3: "
        "if 2 views were stacked, repeat them, `torch.as_tensor(labels).repeat(2)`.",
    ),
    "labels, a multiple": (
        "sample_ids",
        torch.arange(18),
        "`sample_ids` has 18 entries but `query` has 6 rows; each row needs its own, in the same order. 18 is 3 × 6: "
        "if one view of 3 is used, type `sample_ids[:6]`.",
    ),
    "labels, neither and fewer": (
        "coarse_labels of enqueue",
        LABELS[:5],
        "`coarse_labels` has 5 entries but `keys` has 6 rows; each row needs its own, in the same order. Pass those of "
        "the same batch, and where one is cut, cut both: `keys[:n]` and `coarse_labels[:n]`.",
    ),
    "labels, neither and more": (
        "memory_ids",
        torch.arange(13),
        "`memory_ids` has 13 entries but `memory_keys` has 8 rows; each row needs its own, in the same order. If they "
        "are those of a whole data set, pick these rows: `memory_ids[indices]`.",
    ),
    "labels, a multiple too large for views": (
        "coarse_labels of targets",
        torch.zeros(6000, dtype=torch.int64),
        "`coarse_labels` has 6000 entries but `key` has 6 rows; each row needs its own, in the same order. If they are "
        "those of a whole data set, pick these rows: `coarse_labels[indices]`.",
    ),
    "labels, none": (
        "gallery_labels",
        MEMORY_LABELS[:0],
        "`gallery_labels` has 0 entries but `gallery` has 8 rows; each row needs its own, in the same order. Pass "
        "those of the same batch, and where one is cut, cut both: `gallery[:n]` and "
        "`torch.as_tensor(gallery_labels)[:n]`.",
    ),
    "labels for no rows": (
        "keys",
        KEY[:0],
        "`coarse_labels` has 6 entries but `keys` has 0 rows; each row needs its own, in the same order. If they are "
        "those of a whole data set, pick these rows: `coarse_labels[indices]`.",
    ),
}
WRONG_DEVICE = {
    "coarse_labels": (
        "coarse_labels",
        LABELS.to("meta"),
        "`coarse_labels` is on meta but `query` is on cpu; both must be on one device. One of them was not moved: type "
        "`coarse_labels.to(query.device)`.",
    ),
    "memory_labels": (
        "memory_labels",
        MEMORY_LABELS.to("meta"),
        "`memory_labels` is on meta but `memory_keys` is on cpu; both must be on one device. One of them was not "
        "moved: type `memory_labels.to(memory_keys.device)`.",
    ),
    "gallery_labels": (
        "gallery_labels",
        MEMORY_LABELS.to("meta"),
        "`gallery_labels` is on meta but `gallery` is on cpu; both must be on one device. One of them was not moved: "
        "type `torch.as_tensor(gallery_labels).to(gallery.device)`.",
    ),
}

Case = tuple[Callable[[], object], type[Exception], str]
CASES: dict[str, Case] = {
    f"{title}: {name}": (lambda argument=argument, value=value: CALLS[argument](value), kind, sentence)
    for title, kind, table in (
        ("no tensor", TypeError, NO_TENSOR),
        ("dtype", TypeError, WRONG_DTYPE),
        ("shape", ValueError, WRONG_SHAPE),
        ("device", ValueError, WRONG_DEVICE),
    )
    for name, (argument, value, sentence) in table.items()
}


@pytest.mark.parametrize(("call", "kind", "sentence"), CASES.values(), ids=CASES)
def test_the_sentence(call: Callable[[], object], kind: type[Exception], sentence: str) -> None:
    error = error_of(call)
    assert type(error) is kind
    assert str(error) == sentence


@pytest.mark.parametrize(
    ("argument", "value", "advice"),
    [
        ("query", QUERY.tolist(), "torch.as_tensor(query)"),
        ("query", list(QUERY), "torch.stack(query)"),
        ("embeddings", COLLECTED, "torch.cat(embeddings)"),
        ("logits", (SCORES, KEY), "logits[0]"),
        ("coarse_labels", array_like(LABELS), "torch.as_tensor(np.asarray(coarse_labels))"),
        ("labels", ["cat", "dog"] * 3, "torch.tensor([names.index(name) for name in labels])"),
        ("labels", np.array(["cat", "dog"] * 3), "np.array([names.index(name) for name in labels])"),
        ("embeddings", QUERY.numpy().astype(object), "embeddings.astype(np.float32)"),
        ("query", nested([QUERY[:2], QUERY[2:]]), "torch.cat(query.unbind())"),
        ("query", QUERY.to_sparse(), "query.to_dense()"),
        ("keys", KEY.to_mkldnn(), "keys.to_dense()"),
        ("key", KEY.int(), "key.float()"),
        ("key", torch.complex(KEY[:, :2], KEY[:, 2:]), "torch.view_as_real(key).flatten(1)"),
        ("embeddings", QUERY.numpy().astype(int), "torch.as_tensor(embeddings).float()"),
        ("query", QUERY.unflatten(0, (2, 3)), "query.flatten(0, 1)"),
        ("query", QUERY[:, None].expand(B, 5, D), "query.mean(1)"),
        ("keys", KEY[:, :, None, None].expand(B, D, 2, 2), "keys.flatten(2).mean(2)"),
        ("memory_keys", MEMORY[:, :, None, None, None], "memory_keys.flatten(2).mean(2)"),
        ("coarse_labels", LABELS.float(), "coarse_labels.long()"),
        ("labels", LABELS.numpy().astype(float), "torch.as_tensor(labels).long()"),
        ("coarse_labels", F.one_hot(LABELS).bool(), "coarse_labels.float().argmax(1)"),
        ("coarse_labels", LABELS[0], "coarse_labels.repeat(6)"),
        ("coarse_labels", LABELS.unsqueeze(1), "coarse_labels.reshape(6)"),
        ("coarse_labels", F.one_hot(LABELS), "coarse_labels.argmax(1)"),
        ("coarse_labels", LABELS[:, None, None].expand(B, 3, 3), "coarse_labels.flatten(1)[:, 0]"),
        ("labels", np.zeros((100, 1), int), "torch.as_tensor(labels).flatten()[indices]"),
        ("coarse_labels", LABELS[:3], "coarse_labels.repeat(2)"),
        ("labels", LABELS[:3].numpy(), "torch.as_tensor(labels).repeat(2)"),
        ("coarse_labels", LABELS.repeat(3), "coarse_labels[:6]"),
        ("coarse_labels", torch.zeros(100, dtype=torch.int64), "coarse_labels[indices]"),
    ],
)
def test_what_the_sentence_advises_is_accepted(argument: str, value: object, advice: str) -> None:
    sentence = str(error_of(lambda: CALLS[argument](value)))
    assert f"`{advice}`" in sentence
    names = {"torch": torch, "np": np, "names": ["cat", "dog"], "indices": torch.arange(B), argument: value}
    CALLS[argument](eval(advice, names))


def test_a_single_sample_made_a_batch_as_advised_is_accepted() -> None:
    MaskConLoss()(QUERY[0].unsqueeze(0), KEY[:1], LABELS[:1])


# ------------------------------------------------------------------------------------- is any sentence left untested?

MODULES = (test_settings, test_implementation, test_loss, test_queue, test_ranks, test_recall, test_diagnostics)
TABLES = {module: module.CASES for module in MODULES}
SOURCES = [path for path in Path(_checks.__file__).parent.glob("*.py") if path.name != "__init__.py"]


def every_error() -> list[Exception]:
    errors = [error_of(call) for call, *_ in CASES.values()]
    return errors + [module.error_of(call) for module, cases in TABLES.items() for call, *_ in cases.values()]


def test_every_raise_is_reached() -> None:
    last = [traceback.extract_tb(error.__traceback__)[-1] for error in every_error()]
    reached = {(frame.filename, frame.lineno) for frame in last}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise):
                lines = {(str(path), line) for line in range(node.lineno, node.end_lineno + 1)}
                assert lines & reached, f"{path.name}, line {node.lineno}"
                reached -= lines
    assert not reached, "an error that comes from elsewhere"


def test_every_word_of_every_sentence_is_asserted() -> None:
    """The pieces of text in the sources, but docstrings, stand in some sentence of the tables."""
    sentences = [sentence for cases in (CASES, *TABLES.values()) for _, _, sentence in cases.values()]
    for path in SOURCES:
        tree = ast.parse(path.read_text())
        notes = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, (ast.Module, ast.FunctionDef)) and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in notes:
                piece = node.value
                assert " " not in piece or any(piece in sentence for sentence in sentences), f"{path.name}: {piece}"
