"""CLINC150's 150 intents from its 10 domains: clusters of a fine-tuned MaskCon, then a model trained on them.

    python benchmarks/category_discovery.py --root DATA --out runs/discovery --seeds 0 1 2 --rounds 1

Round 0 fine-tunes MiniLM by MaskCon on the domains, with the settings that `regrain tune` chose by the agreement of
views, and clusters the training texts' embeddings within each domain into clusters of equal size (`regrain discover
--each 15 --balanced`): a test text, its domain unknown, gets the cluster of the nearest centre. Every further round
trains a classifier on the clusters of the round before, from the pretrained weights again, and a test text gets the
class it predicts. Each round is judged twice: by those predictions, and by k-means over the test embeddings, as
category discovery judges, begun at the predicted classes' means instead of at random. Last the seeds are taken
together: their probabilities averaged, classes matched on the training texts, and their embeddings side by side. No
intent is read but for the figures: ACC (Hungarian), NMI and ARI of the test split, recall@1 of its embeddings.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from torch.nn import functional

from regrain import Run, fit, load
from regrain.data.dataset import Dataset
from regrain.evaluation import embed
from regrain.methods.clustering import Subclusters, cluster_within
from regrain.metrics import clustering_metrics, recall_at_k

EACH = 15
FINE_TUNED = ["training.encoder_learning_rate=0.0001", "training.learning_rate=0.002"]
CONTRAST = ["epochs=4", "batch_size=128", "weight=0.5", "temperature=0.0689", "soft_temperature=0.0764", *FINE_TUNED]
CLASSIFY = ["epochs=3", "batch_size=64", "training.warmup_epochs=0.2", *FINE_TUNED]


def clustered(run: Run, train: Dataset, seed: int) -> Subclusters:
    """Clusters of equal size within each domain."""
    domain = train.labels.level("domain")
    return cluster_within(embed(run.model, train), domain, each=EACH, balanced=True, seed=seed)


def told(line: str, vectors: torch.Tensor, test: Dataset, found: torch.Tensor) -> None:
    """Print the figures of classes found, and of k-means over embeddings begun at them."""
    labels = test.labels.level("intent")
    recall = recall_at_k(vectors, labels, [1])[1]
    means = torch.stack([vectors[found == code].mean(dim=0) for code in found.unique()])
    again = torch.from_numpy(KMeans(len(means), init=means.numpy(), n_init=1).fit(vectors.numpy()).labels_).long()
    for how, clusters in (("", found), (", k-means from there", again)):
        metrics = clustering_metrics(labels, clusters)
        figures = {"ACC": metrics["acc"], "NMI": metrics["nmi"], "ARI": metrics["ari"], "recall@1": recall}
        print(line + how + ": " + ", ".join(f"{n} {100 * value:.2f}" for n, value in figures.items()), flush=True)


def trained(path: Path, method: str, data: object, settings: list[str], seed: int, **options: object) -> Run:
    """The run at a path, trained where it is not there yet."""
    if (path / "model" / "config.json").exists():
        return Run.open(path)
    return fit(method, data, out=path, encoder="minilm", settings=settings, seed=seed, overwrite=True, **options)


def agreed(opinions: list[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """Mean probabilities of the test texts over seeds; each seed's classes are matched on the training texts."""
    (total, first), *others = opinions
    for test, train in others:
        _, own = linear_sum_assignment(-(first.T @ train).numpy())
        total = total + test[:, torch.from_numpy(own)]
    return total / len(opinions)


def main() -> None:
    """All rounds of all seeds, and what the seeds agree on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root")
    parser.add_argument("--out", type=Path, default=Path("runs/discovery"))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=1, choices=range(1, 10))
    options = parser.parse_args()
    data = load("clinc150", root=options.root)
    train, test = data.split("train"), data.split("test")
    texts = train.samples.take(torch.arange(len(train)))
    opinions, spaces = [], []
    for seed in options.seeds:
        run = trained(options.out / f"maskcon-s{seed}", "maskcon", "clinc150", CONTRAST, seed, root=options.root)
        clusters = clustered(run, train, seed)
        vectors = functional.normalize(embed(run.model, test), dim=1)
        told(f"seed {seed}, round 0", vectors, test, (vectors @ clusters.centres.T + clusters.offsets).argmax(dim=1))
        for number in range(1, options.rounds + 1):
            table = pd.DataFrame({"id": train.ids.astype(str), "text": texts, "found": clusters.codes.numpy()})
            file = options.out / f"found-s{seed}-{number}.csv"
            table.to_csv(file, index=False)
            settings = {"levels": ["found"], "text": "text", "id_column": "id", "holdout": 0}
            run = trained(options.out / f"found-s{seed}-{number}", "sup-fine", str(file), CLASSIFY, seed, **settings)
            probabilities = run.predict_proba(test, "fine")
            vectors = functional.normalize(embed(run.model, test), dim=1)
            told(f"seed {seed}, round {number}", vectors, test, probabilities.argmax(dim=1))
            if number < options.rounds:
                clusters = clustered(run, train, seed)
        opinions.append((probabilities, run.predict_proba(train, "fine")))
        spaces.append(vectors)
    if len(opinions) > 1:
        vectors = functional.normalize(torch.cat(spaces, dim=1), dim=1)
        told(f"{len(opinions)} seeds together", vectors, test, agreed(opinions).argmax(dim=1))


if __name__ == "__main__":
    main()
