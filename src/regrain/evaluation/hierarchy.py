"""Protocol ``hierarchy``: classes found at the leaves of a class hierarchy, judged at every level of it."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from torch.nn.functional import normalize

from regrain.checks import Count
from regrain.data import taxonomies
from regrain.errors import UserError, nearest
from regrain.evaluation.protocols import Representation, Score, Task, protocol
from regrain.labels import Taxonomy
from regrain.methods.clustering import kmeans
from regrain.metrics import hierarchy_metrics, match_clusters


@protocol("partitions", levels="finest")
def hierarchy(
    representation: Representation,
    task: Task,
    *,
    taxonomy: Any = None,
    hierarchy_mapping: Literal["test", "train"] = "test",
    cluster_starts: Count = 10,
) -> dict[str, Score]:
    """ACC, NMI, AMI and ARI at every level, and at which level predictions and classes meet.

    Clusters are matched to the leaf classes, those of the task's level, by the Hungarian algorithm, with further
    clusters going to their majority class; then both sides are mapped up to each level, and samples without an ancestor
    there are left out and counted (Self-Classifier, ECCV 2022, tables 2 and 3). The clusters are the first partition of
    the method's own, else those of k-means. Figures are ``acc@LEVEL`` and so on, ``samples@LEVEL`` where some are left
    out, and ``meets@LEVEL``.

    Raises a UserError if there is no level above, a class lies under two of a level, or the taxonomy knows none of the
    classes.

    Parameters
    ----------
    taxonomy : Taxonomy, str or path, optional
        A name of ``regrain taxonomies``, or a file, in place of the data's own levels: the names of the leaf classes
        are looked up in it, and its levels that group none of them are left out.
    hierarchy_mapping : {"test", "train"}
        The split on whose labels clusters are matched to classes; train for a partition of the method's own only.
    cluster_starts : int
        Starts of k-means; that of lowest inertia counts, which no label decides.
    """
    known = task.known()
    labels = task.test_labels[known].numpy()
    notes: list[str] = []
    ancestors = _ancestors(task, taxonomy, notes)
    clusters, matched_on = _clusters(representation, task, known.numpy(), hierarchy_mapping, cluster_starts, notes)
    mapping = match_clusters(*matched_on)
    predicted = np.array([mapping.get(cluster, -1) for cluster in clusters.tolist()])
    found = hierarchy_metrics(labels, predicted, ancestors)
    scores: dict[str, Score] = {}
    for level, metrics in found.levels.items():
        scores |= {f"{metric}@{level}": Score(value) for metric, value in metrics.items()}
    for level, count in found.counted.items():
        if count < len(labels):
            what = "the others are judged" if count else "no figure"
            scores[f"samples@{level}"] = Score(
                count, note=f"{len(labels) - count} of {len(labels)} samples have no class there: {what}", count=True
            )
    scores |= {f"meets@{level}": Score(share) for level, share in found.meets.items()}
    first = next(iter(scores))
    scores[first] = Score(scores[first].value, note="; ".join(notes))
    return scores


def _ancestors(task: Task, source: Any, notes: list[str]) -> dict[str, np.ndarray]:
    """Level, coarsest first -> the class over each leaf class; the leaves themselves last."""
    own = {task.level: np.arange(len(task.classes))}
    if source is not None:
        given = source if isinstance(source, Taxonomy) else taxonomies.taxonomy(source)
        lineage = given.lineage(task.classes)
        placed = np.max([codes.numpy() for codes in lineage.values()], axis=0) >= 0
        if not placed.any():
            example, names = task.classes[0], [name for level in given.classes for name in level]
            raise UserError(
                f"the taxonomy knows none of the {len(task.classes)} classes of level '{task.level}', such as "
                f"'{example}': {nearest(example, names)}"
            )
        if not placed.all():
            unplaced = [name for name, known in zip(task.classes, placed, strict=True) if not known]
            notes.append(f"the taxonomy does not know {len(unplaced)} classes, such as '{unplaced[0]}'")
        above = {level: codes.numpy() for level, codes in lineage.items() if level != task.level}
        coarser = {level: codes for level, codes in above.items() if len(set(codes[codes >= 0])) < (codes >= 0).sum()}
        if not coarser:
            raise UserError(f"no level of the taxonomy groups the classes of level '{task.level}'")
        return coarser | own
    if task.taxonomy is None:
        raise UserError(
            f"no level lies above '{task.level}': hierarchy needs levels that nest, or a taxonomy of its classes"
        )
    levels = task.taxonomy.levels[: task.taxonomy.level_index(task.level)]
    if not levels:
        raise UserError(f"no level lies above '{task.level}': choose a finer one, or give a taxonomy of its classes")
    return {level: task.taxonomy.ancestors(task.level, level).numpy() for level in levels} | own


def _clusters(
    representation: Representation, task: Task, known: np.ndarray, matched_on: str, starts: int, notes: list[str]
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """The clusters of the test samples, and the (labels, clusters) that they are matched on."""
    labels = task.test_labels.numpy()[known]
    if representation.partitions is None:
        vectors, count = normalize(representation.test[known]), len(np.unique(labels))
        clusters = kmeans(vectors, count, starts=starts, seed=task.seed)[0].numpy()
        notes.append("clusters of k-means, matched to the leaf classes on the judged labels themselves")
        return clusters, (labels, clusters)
    clusters = representation.partitions[known][:, 0].numpy()
    if matched_on == "train":
        if representation.train_partitions is None or task.train_labels is None:
            raise UserError("hierarchy matched on the training split needs one that is labelled at this level")
        notes.append("the method's first partition, matched to the leaf classes on the training split")
        return clusters, (task.train_labels.numpy(), representation.train_partitions[:, 0].numpy())
    notes.append("the method's first partition, matched to the leaf classes on the judged labels themselves")
    return clusters, (labels, clusters)
