"""What is said about wrong settings, at construction and after a change."""

import math
from collections.abc import Callable
from decimal import Decimal

import numpy as np
import pytest
import torch
from instruments import error_of
from torch import nn

from maskcon_loss import (
    CoarseMaskSoftTargets,
    CoInsLoss,
    GrafitLoss,
    MaskConLoss,
    MemoryQueue,
    SelfConLoss,
    SupConLoss,
    functional,
    recall_at_k,
)

FEATURES, LABELS = torch.eye(4), torch.tensor([0, 1, 0, 1])

Case = tuple[Callable[[], object], type[Exception], str]
CASES: dict[str, Case] = {
    # ------------------------------------------------------------------------------------------------------ weight
    "weight as a percentage": (
        lambda: MaskConLoss(80),
        ValueError,
        "`weight` is 80; it says how much the coarse labels count and must lie in [0, 1]. If it is a percentage, type "
        "`weight=0.8`.",
    ),
    "weight a little above 1": (
        lambda: GrafitLoss(1.001),
        ValueError,
        "`weight` is 1.001; it says how much the coarse labels count and must lie in [0, 1]. If a schedule computed "
        "it, keep it inside: `weight=min(1.0, max(0.0, value))`.",
    ),
    "weight below 0": (
        lambda: CoInsLoss(-0.1),
        ValueError,
        "`weight` is -0.1; it says how much the coarse labels count and must lie in [0, 1]. If a schedule computed it, "
        "keep it inside: `weight=min(1.0, max(0.0, value))`.",
    ),
    "weight NaN": (
        lambda: CoarseMaskSoftTargets(math.nan),
        ValueError,
        "`weight` is nan; it says how much the coarse labels count and must lie in [0, 1]. If a schedule computed it, "
        "keep it inside: `weight=min(1.0, max(0.0, value))`.",
    ),
    "weight as text": (
        lambda: MaskConLoss("0.5"),
        TypeError,
        "`weight` is '0.5', of type str; it must be a Python number. If it was read or computed, type "
        "`weight=float(value)`.",
    ),
    "weight of another library": (
        lambda: MaskConLoss(Decimal("0.5")),
        TypeError,
        "`weight` is Decimal('0.5'), of type Decimal; it must be a Python number. If it was read or computed, type "
        "`weight=float(value)`.",
    ),
    "weight as a parameter": (
        lambda: MaskConLoss(nn.Parameter(torch.tensor(0.5))),
        TypeError,
        "`weight` is a tensor; it must be a Python number, because a loss does not learn its settings. Type "
        "`weight=value.item()`.",
    ),
    "weight None": (
        lambda: MaskConLoss(None),
        TypeError,
        "`weight` is None; it must be a Python number. Type the number itself, or leave the argument out for its "
        "default.",
    ),
    "weight True": (
        lambda: MaskConLoss(True),
        TypeError,
        "`weight` is True, of type bool; it must be a Python number. Type the number itself, or leave the argument out "
        "for its default.",
    ),
    "weight of a function": (
        lambda: functional.maskcon(FEATURES, FEATURES, LABELS, None, None, weight=[0.5]),
        TypeError,
        "`weight` is [0.5], of type list; it must be a Python number. Type the number itself, or leave the argument "
        "out for its default.",
    ),
    # ------------------------------------------------------------------------------------------------ temperatures
    "temperature 0": (
        lambda: MaskConLoss(temperature=0),
        ValueError,
        "`temperature` is 0; similarities are divided by it, so it must lie between 1e-12 and 1e+12. The paper's is "
        "`temperature=0.1`; a schedule that lowers it must stop above 0.",
    ),
    "temperature infinite": (
        lambda: SupConLoss(temperature=math.inf),
        ValueError,
        "`temperature` is inf; similarities are divided by it, so it must lie between 1e-12 and 1e+12. The paper's is "
        "`temperature=0.1`; a schedule that lowers it must stop above 0.",
    ),
    "temperature beyond float32": (
        lambda: CoInsLoss(temperature=1e300),
        ValueError,
        "`temperature` is 1e+300; similarities are divided by it, so it must lie between 1e-12 and 1e+12. The paper's "
        "is `temperature=0.1`; a schedule that lowers it must stop above 0.",
    ),
    "target temperature 0": (
        lambda: MaskConLoss(target_temperature=0.0),
        ValueError,
        "`target_temperature` is 0.0; similarities are divided by it, so it must be at least 1e-12. If only the "
        "nearest key is to count, type `target_temperature=1e-3`; for equal shares `target_temperature=math.inf`.",
    ),
    "target temperature NaN": (
        lambda: CoarseMaskSoftTargets(target_temperature=math.nan),
        ValueError,
        "`target_temperature` is nan; similarities are divided by it, so it must be at least 1e-12. If only the "
        "nearest key is to count, type `target_temperature=1e-3`; for equal shares `target_temperature=math.inf`.",
    ),
    # ------------------------------------------------------------------------------------------------ names, flags
    "reduction with a capital": (
        lambda: MaskConLoss(reduction="Sum"),
        ValueError,
        '`reduction` is \'Sum\'; it must be one of "mean", "sum", "none". Type `reduction="sum"`.',
    ),
    "reduction unknown": (
        lambda: GrafitLoss(reduction="avg"),
        ValueError,
        '`reduction` is \'avg\'; it must be one of "mean", "sum", "none". The default is `reduction="mean"`.',
    ),
    "reduction None": (
        lambda: SelfConLoss(reduction=None),
        TypeError,
        '`reduction` is None; it must be one of "mean", "sum", "none". The default is `reduction="mean"`.',
    ),
    "impl unknown": (
        lambda: MaskConLoss(impl="cuda"),
        ValueError,
        '`impl` is \'cuda\'; it must be one of "auto", "dense", "streamed", "triton". The default is `impl="auto"`.',
    ),
    "normalize as a number": (
        lambda: MaskConLoss(normalize=1),
        TypeError,
        "`normalize` is 1, of type int; it must be True or False. The default is `normalize=True`; if it was computed, "
        "type `normalize=bool(value)`.",
    ),
    "normalize as text": (
        lambda: CoarseMaskSoftTargets(normalize="False"),
        TypeError,
        "`normalize` is 'False', of type str; it must be True or False. If it was read from a file or a command line, "
        "type `normalize=value.lower() == 'true'`.",
    ),
    "normalize of recall": (
        lambda: recall_at_k(FEATURES, LABELS, k=1, normalize=None),
        TypeError,
        "`normalize` is None; it must be True or False. The default is `normalize=True`; if it was computed, type "
        "`normalize=bool(value)`.",
    ),
    # -------------------------------------------------------------------------------------------------- whole numbers
    "size 0": (
        lambda: MemoryQueue(0, 4),
        ValueError,
        "`size` is 0; it is the number of keys the queue holds and must be 1 or more. If it was computed, type "
        "`size=max(1, value)`.",
    ),
    "size as a float": (
        lambda: MemoryQueue(4096.0, 4),
        TypeError,
        "`size` is 4096.0, of type float; it is the number of keys the queue holds and must be a whole number. If it "
        "was read or computed, type `size=int(value)`.",
    ),
    "dim None": (
        lambda: MemoryQueue(4096, None),
        TypeError,
        "`dim` is None; it is the number of features of a key and must be a whole number. Type one, such as "
        "`dim=1024`.",
    ),
    "dim True": (
        lambda: MemoryQueue(4096, True),
        TypeError,
        "`dim` is True, of type bool; it is the number of features of a key and must be a whole number. Type one, such "
        "as `dim=1024`.",
    ),
    "a long list is shortened": (
        lambda: MemoryQueue(list(range(10_000)), 4),
        TypeError,
        "`size` is [0, 1, 2, 3, 4, 5, ...], of type list; it is the number of keys the queue holds and must be a whole "
        "number. Type one, such as `size=1024`.",
    ),
}


@pytest.mark.parametrize(("call", "kind", "sentence"), CASES.values(), ids=CASES)
def test_the_sentence(call: Callable[[], object], kind: type[Exception], sentence: str) -> None:
    error = error_of(call)
    assert type(error) is kind
    assert str(error) == sentence


#: What is set after construction, and what the next call says.
CHANGED: dict[str, tuple[object, str]] = {
    "weight": (
        2.0,
        "`weight` is 2.0; it says how much the coarse labels count and must lie in [0, 1]. If it is a percentage, type "
        "`weight=0.02`.",
    ),
    "temperature": (
        0.0,
        "`temperature` is 0.0; similarities are divided by it, so it must lie between 1e-12 and 1e+12. The paper's is "
        "`temperature=0.1`; a schedule that lowers it must stop above 0.",
    ),
    "target_temperature": (
        -1,
        "`target_temperature` is -1; similarities are divided by it, so it must be at least 1e-12. If only the nearest "
        "key is to count, type `target_temperature=1e-3`; for equal shares `target_temperature=math.inf`.",
    ),
    "reduction": (
        "MEAN",
        '`reduction` is \'MEAN\'; it must be one of "mean", "sum", "none". Type `reduction="mean"`.',
    ),
    "normalize": (
        0,
        "`normalize` is 0, of type int; it must be True or False. The default is `normalize=True`; if it was computed, "
        "type `normalize=bool(value)`.",
    ),
    "impl": (
        "cuda",
        '`impl` is \'cuda\'; it must be one of "auto", "dense", "streamed", "triton". The default is `impl="auto"`.',
    ),
}
MODULES = [MaskConLoss, SelfConLoss, SupConLoss, GrafitLoss, CoInsLoss, CoarseMaskSoftTargets]


@pytest.mark.parametrize(
    ("make", "setting"), [(make, setting) for make in MODULES for setting in CHANGED if hasattr(make(), setting)]
)
def test_a_setting_that_is_changed_is_looked_at_in_the_next_call(make: Callable[[], nn.Module], setting: str) -> None:
    module, (value, sentence) = make(), CHANGED[setting]
    features = (FEATURES,) if make is CoarseMaskSoftTargets else (FEATURES, FEATURES)
    scores = {"logits": torch.zeros(4, 2)} if make is CoInsLoss else {}
    module(*features, LABELS, **scores)
    setattr(module, setting, value)
    assert str(error_of(lambda: module(*features, LABELS, **scores))) == sentence


@pytest.mark.parametrize(
    ("value", "converted"),
    [("0.5", float), (np.float32(0.5), float), (Decimal("0.5"), float), (torch.tensor(0.5), torch.Tensor.item)],
    ids=["text", "NumPy's", "of another library", "a tensor"],
)
def test_a_number_converted_as_advised_is_accepted(value: object, converted: Callable[[object], float]) -> None:
    with pytest.raises(TypeError):
        MaskConLoss(value)
    assert MaskConLoss(converted(value)).weight == 0.5
