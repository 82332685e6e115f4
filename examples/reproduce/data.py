"""Images with coarse and fine labels as tensors: decoded once, kept in memory as bytes.

`load` hands out two `Data`, to train on and to judge by. Any other data plugs in as such a pair, or as the dataset
`folder`: train/COARSE/FINE/*.jpg and test/COARSE/FINE/*.jpg.
"""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from examples.reproduce.formats import DataError
from examples.reproduce.settings import Settings


class Data(NamedTuple):
    """Images with both their labels."""

    images: Tensor  # (N, 3, H, W) uint8
    coarse: Tensor  # (N,) from 0 on, what training is told
    fine: Tensor  # (N,) from 0 on, for SupFINE and for the evaluation

    def at(self, rows: Tensor) -> "Data":
        return Data(self.images[rows], self.coarse[rows], self.fine[rows])

    def few(self, count: int, seed: int) -> "Data":
        """`count` images, equally often of every fine class as far as there are enough; the same for the same seed."""
        return self if count >= len(self.fine) else self.at(self._balanced(seed)[:count].sort().values)

    def hold_out(self, count: int, seed: int) -> tuple["Data", "Data"]:
        """All images but `count`, and these, equally often of every fine class."""
        rows = self._balanced(seed)
        return self.at(rows[count:].sort().values), self.at(rows[:count].sort().values)

    def _balanced(self, seed: int) -> Tensor:
        """All rows, shuffled, the first of every class before the second of any."""
        shuffled = torch.randperm(len(self.fine), generator=torch.Generator().manual_seed(seed))
        by_class = shuffled[self.fine[shuffled].argsort(stable=True)]
        counts = self.fine.bincount()
        rank = torch.arange(len(by_class)) - (counts.cumsum(0) - counts)[self.fine[by_class]]
        return by_class[rank.argsort(stable=True)]


def load(settings: Settings, root: Path, labels: Path | None = None) -> tuple[Data, Data]:
    """The data to train on and to judge by; `labels` is the folder of the paper's label files, where needed."""
    from examples.reproduce import sources  # they are made of `Data`

    if not root.is_dir():
        raise DataError(f"{root} is no folder; give the one that holds the data of {settings.dataset} to --data.")
    train, test = sources.READERS[settings.dataset](settings, root, labels or root)
    if settings.hold_out:
        train, test = train.hold_out(settings.hold_out, seed=0)
    return train.few(settings.train_images or len(train.fine), seed=0), test
