"""How much of MaskCon's mass falls on the right fine class, in finished runs on the same data and by T'.

python -m docs.reproduction.right --data DIR RUNS/cifartoy-good/selfcon-seed1 RUNS/cifartoy-good/...
"""

import argparse
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from examples.reproduce.augment import plain
from examples.reproduce.data import Data, load
from examples.reproduce.formats import tensors
from examples.reproduce.model import Encoder
from examples.reproduce.settings import Settings
from maskcon_loss import CoarseMaskSoftTargets, MemoryQueue

TARGET_TEMPERATURES, QUERIES = (0.02, 0.05, 0.1, 0.2, 0.5), 2000
OF_THE_DATA = ("dataset", "image_size", "train_images", "hold_out")  # settings that `load` follows


@torch.no_grad()
def project(model: Encoder, images: Tensor, settings: Settings) -> Tensor:
    """Projections (N, D) of images as they are: what the targets are made of."""
    view = plain(settings)
    return torch.cat([model(view(some))[1] for some in images.split(500)])


def shares(settings: Settings, checkpoint: Path, train: Data, test: Data) -> list[float]:
    """For each T' the share of the class's mass, in percent, that is on the query's fine class."""
    model = Encoder(settings, int(train.coarse.max()) + 1).eval()
    model.load_state_dict(tensors(checkpoint, "cpu")["model"])
    torch.manual_seed(0)
    rows = torch.randperm(len(train.fine))[: settings.queue]
    queue = MemoryQueue(settings.queue, settings.dim)
    queue.enqueue(project(model, train.images[rows], settings), train.coarse[rows])
    key, fine = project(model, test.images[:QUERIES], settings), test.fine[:QUERIES]
    of_class = F.one_hot(train.fine[rows], int(max(train.fine.max(), fine.max())) + 1).float()
    found = []
    for target_temperature in TARGET_TEMPERATURES:
        targets = CoarseMaskSoftTargets(target_temperature=target_temperature)
        mass = targets(key, test.coarse[:QUERIES], queue)[:, 1:]
        right = (mass @ of_class).gather(1, fine.unsqueeze(1)).squeeze(1)
        found.append(100 * float((right / mass.sum(1)).mean()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    arguments = parser.parse_args()
    settings = [Settings(**json.loads((run / "settings.json").read_text())) for run in arguments.runs]
    if len({tuple(getattr(each, name) for name in OF_THE_DATA) for each in settings}) > 1:
        parser.error(f"the runs differ in their data ({', '.join(OF_THE_DATA)}); give those on the same.")
    train, test = load(settings[0], arguments.data, arguments.labels)
    for run, each in zip(arguments.runs, settings, strict=True):
        found = zip(TARGET_TEMPERATURES, shares(each, run / "checkpoint.pt", train, test), strict=True)
        print(run.name, *(f"T' {target_temperature:g}: {share:.0f} %" for target_temperature, share in found), sep="  ")


if __name__ == "__main__":
    main()
