"""How much of MaskCon's mass falls on the right fine class, in finished runs and by T'.

python -m docs.reproduction.right --data DIR RUNS/cifartoy-good/selfcon-seed1 RUNS/cifartoy-good/...
"""

import argparse
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from examples.reproduce.augment import plain
from examples.reproduce.data import load
from examples.reproduce.model import Encoder
from examples.reproduce.settings import Settings
from maskcon_loss import CoarseMaskSoftTargets, MemoryQueue

TARGET_TEMPERATURES, QUERIES = (0.02, 0.05, 0.1, 0.2, 0.5), 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    arguments = parser.parse_args()
    for run in arguments.runs:
        settings = Settings(**json.loads((run / "settings.json").read_text()))
        train, test = load(settings, arguments.data, arguments.labels)
        model = Encoder(settings, int(train.coarse.max()) + 1).eval()
        model.load_state_dict(torch.load(run / "checkpoint.pt", map_location="cpu", weights_only=True)["model"])
        view = plain(settings)

        @torch.no_grad()
        def project(images: Tensor, model: Encoder = model, view=view) -> Tensor:
            return torch.cat([model(view(some))[1] for some in images.split(500)])

        torch.manual_seed(0)
        rows = torch.randperm(len(train.fine))[: settings.queue]
        queue = MemoryQueue(settings.queue, settings.dim)
        queue.enqueue(project(train.images[rows]), train.coarse[rows])
        key, coarse, fine = project(test.images[:QUERIES]), test.coarse[:QUERIES], test.fine[:QUERIES]
        of_class = F.one_hot(train.fine[rows], int(max(train.fine.max(), fine.max())) + 1).float()
        found = []
        for target_temperature in TARGET_TEMPERATURES:
            mass = CoarseMaskSoftTargets(target_temperature=target_temperature)(key, coarse, queue)[:, 1:]
            right = (mass @ of_class).gather(1, fine.unsqueeze(1)).squeeze(1)
            found.append(f"T' {target_temperature:g}: {100 * float((right / mass.sum(1)).mean()):.0f} %")
        print(run.name, *found, sep="  ")


if __name__ == "__main__":
    main()
