"""Text with coarse topics: no images, the same two lines. `# before:` is what is replaced.

    pip install -e ".[examples]"
    python examples/loops/with_text.py            # 10 seconds on one core
    python examples/loops/with_text.py --smoke    # only to see that it runs

Trains on the descriptions of public functions and classes in SciPy and scikit-learn, each labelled with one of five
topics, and prints how often a held-out text finds one of the same submodule among its nearest neighbours.
"""

import argparse
import importlib
import inspect
import re

import torch
import torch.nn.functional as F
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from maskcon_loss import MaskConLoss, MemoryQueue, recall_at_k

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
EPOCHS, BATCH, RATE, QUEUE, DIM, MOMENTUM = 40, 64, 1e-3, 512, 64, 0.99
TOPICS = {
    "algebra": ["scipy.linalg", "scipy.sparse", "scipy.sparse.linalg", "scipy.special"],
    "calculus": ["scipy.integrate", "scipy.interpolate", "scipy.optimize"],
    "signals": ["scipy.fft", "scipy.ndimage", "scipy.signal"],
    "statistics": ["scipy.spatial.distance", "scipy.stats", "sklearn.metrics", "sklearn.model_selection"],
    "learning": ["scipy.cluster.hierarchy", "sklearn.cluster", "sklearn.linear_model", "sklearn.preprocessing"],
}
END = re.compile(r"\n(?:Parameters|Returns|Notes|Attributes|Methods)\n-+")  # of a description


def texts() -> tuple[list[str], list[int], list[int]]:
    """Descriptions, each once, with the numbers of their topic and their submodule."""
    found: dict[str, tuple[int, int]] = {}
    topic_of = [(topic, name) for topic, names in enumerate(TOPICS.values()) for name in names]
    for fine, (topic, name) in enumerate(topic_of):
        module = importlib.import_module(name)
        for public in module.__all__:
            thing = vars(module).get(public)
            text = END.split(inspect.getdoc(thing) or "")[0] if callable(thing) else ""
            if len(text) >= 40:
                found.setdefault(text, (topic, fine))
    coarse, fine = zip(*found.values(), strict=True)
    return list(found), list(coarse), list(fine)


def load() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training texts, as weights of words, and their topics; held-out texts and their submodules."""
    words, coarse, fine = texts()
    train, test = train_test_split(range(len(words)), test_size=0.33, stratify=fine, random_state=0)
    vectorizer = TfidfVectorizer(stop_words="english", min_df=2, token_pattern="[a-zA-Z]{3,}", sublinear_tf=True)
    vectorizer.fit([words[row] for row in train])
    vectors = torch.tensor(vectorizer.transform(words).toarray(), dtype=torch.float32, device=DEVICE)
    topics, modules = torch.tensor(coarse, device=DEVICE), torch.tensor(fine, device=DEVICE)
    print(
        f"{len(train)} texts to train on, {len(test)} held out; {vectors.shape[1]} words, {len(set(fine))} submodules"
    )
    return vectors[train], topics[train], vectors[test], modules[test]


def new_encoder(words: int) -> nn.Sequential:
    """A linear backbone, whose features are judged, and a projector, whose output the loss compares."""
    return nn.Sequential(nn.Linear(words, 256), nn.Linear(256, DIM)).to(DEVICE)


def train(encoder: nn.Module, vectors: Tensor, topics: Tensor, epochs: int) -> None:
    momentum_encoder = AveragedModel(encoder, multi_avg_fn=get_ema_multi_avg_fn(MOMENTUM), use_buffers=True)
    # A random encoder's similarities mean little, and with weight=1.0 all of the mass follows them: it can collapse.
    criterion = MaskConLoss(weight=0.8, target_temperature=0.1)
    queue = MemoryQueue(QUEUE, DIM, device=DEVICE)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, epochs * -(-len(vectors) // BATCH))

    for _ in range(epochs):
        for ids in torch.randperm(len(vectors)).to(DEVICE).split(BATCH):
            query = encoder(F.dropout(vectors[ids], 0.5))  # words left out at random are the views
            with torch.no_grad():
                key = momentum_encoder(F.dropout(vectors[ids], 0.2))

            # before: logits = torch.cat([(query * key).sum(1, keepdim=True), query @ queue], 1) / temperature
            #         loss = cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long))
            loss = criterion(query, key, topics[ids], queue, sample_ids=ids)
            # before: dequeue_and_enqueue(key)
            queue.enqueue(key, topics[ids], ids)

            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            momentum_encoder.update_parameters(encoder)


@torch.no_grad()
def recalls(features: Tensor, fine: Tensor) -> str:
    return " | ".join(f"{100 * share:.1f}" for share in recall_at_k(features, fine).values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="two epochs, only to see that it runs")
    epochs = 2 if parser.parse_args().smoke else EPOCHS
    torch.set_num_threads(1)  # the matrices are small
    vectors, topics, test_vectors, test_fine = load()
    torch.manual_seed(0)
    encoder = new_encoder(vectors.shape[1])
    before = recalls(encoder[0](test_vectors), test_fine)
    train(encoder, vectors, topics, epochs)
    print("| Recall in % | R@1 | R@2 | R@5 | R@10 |\n| --- | --- | --- | --- | --- |")
    print(f"| the words alone | {recalls(test_vectors, test_fine)} |\n| untrained encoder | {before} |")
    print(f"| MaskCon, {epochs} epochs | {recalls(encoder[0](test_vectors), test_fine)} |")


if __name__ == "__main__":
    main()
