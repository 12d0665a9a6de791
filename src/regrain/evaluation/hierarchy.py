"""Protocol ``hierarchy``: classes found at the leaves of a class hierarchy, judged at every level of it."""

from __future__ import annotations

import numpy as np

from regrain.data.taxonomies import taxonomy
from regrain.errors import UserError, nearest
from regrain.evaluation.base import Representation, Score, Setting
from regrain.evaluation.clusters import kmeans_clusters
from regrain.labels import Taxonomy
from regrain.metrics import hierarchy_metrics, match_clusters


def hierarchy(representation: Representation, setting: Setting) -> dict[str, Score]:
    """ACC, NMI, AMI and ARI at every level, and at which level predictions and classes meet.

    Clusters are matched to the leaf classes, those of the setting's level, by the Hungarian algorithm, with further
    clusters going to their majority class; then both sides are mapped up to each level, and samples without an ancestor
    there are left out and counted (Self-Classifier, ECCV 2022, tables 2 and 3). The clusters are the first partition of
    the method's own, else those of k-means. The matching is fitted on the judged labels; with the option
    ``hierarchy_mapping`` ``train``, on the training split's (a partition of the method's own only).

    The hierarchy is the data's own, or that of the option ``taxonomy`` (a :class:`~regrain.labels.Taxonomy`, or what
    :func:`regrain.data.taxonomies.taxonomy` reads), in which the names of the leaf classes are looked up; its
    levels that group none of them are left out. Figures are ``acc@LEVEL`` and so on, ``samples@LEVEL`` where some are
    left out, and ``meets@LEVEL``.

    Raises
    ------
    UserError
        If there is no level above, a class lies under two of a level, or the taxonomy knows none of the classes.
    """
    known = setting.known()
    labels = setting.test_labels[known].numpy()
    notes: list[str] = []
    ancestors = _ancestors(setting, notes)
    clusters, matched_on = _clusters(representation, setting, known.numpy(), notes)
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


def _ancestors(setting: Setting, notes: list[str]) -> dict[str, np.ndarray]:
    """Level, coarsest first -> the class over each leaf class; the leaves themselves last."""
    source = setting.options.get("taxonomy")
    own = {setting.level: np.arange(len(setting.classes))}
    if source is not None:
        given = source if isinstance(source, Taxonomy) else taxonomy(source)
        lineage = given.lineage(setting.classes)
        placed = np.max([codes.numpy() for codes in lineage.values()], axis=0) >= 0
        if not placed.any():
            example, names = setting.classes[0], [name for level in given.classes for name in level]
            raise UserError(
                f"the taxonomy knows none of the {len(setting.classes)} classes of level '{setting.level}', such as "
                f"'{example}': {nearest(example, names)}"
            )
        if not placed.all():
            strangers = [name for name, known in zip(setting.classes, placed, strict=True) if not known]
            notes.append(f"the taxonomy does not know {len(strangers)} classes, such as '{strangers[0]}'")
        above = {level: codes.numpy() for level, codes in lineage.items() if level != setting.level}
        coarser = {level: codes for level, codes in above.items() if len(set(codes[codes >= 0])) < (codes >= 0).sum()}
        if not coarser:
            raise UserError(f"no level of the taxonomy groups the classes of level '{setting.level}'")
        return coarser | own
    if setting.taxonomy is None:
        raise UserError(
            f"no level lies above '{setting.level}': hierarchy needs levels that nest, or a taxonomy of its classes"
        )
    levels = setting.taxonomy.levels[: setting.taxonomy.level_index(setting.level)]
    if not levels:
        raise UserError(f"no level lies above '{setting.level}': judge a finer one, or give a taxonomy of its classes")
    return {level: setting.taxonomy.ancestors(setting.level, level).numpy() for level in levels} | own


def _clusters(
    representation: Representation, setting: Setting, known: np.ndarray, notes: list[str]
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """The clusters of the judged samples, and the (labels, clusters) that they are matched on."""
    labels = setting.test_labels.numpy()[known]
    source = setting.options.get("hierarchy_mapping", "test")
    if source not in ("test", "train"):
        raise UserError(f"hierarchy_mapping is test or train; got {source!r}")
    if representation.partitions is None:
        clusters = kmeans_clusters(representation.test[known], len(np.unique(labels)), setting)
        notes.append("clusters of k-means, matched to the leaf classes on the judged labels themselves")
        return clusters, (labels, clusters)
    clusters = representation.partitions[known][:, 0].numpy()
    if source == "train":
        if representation.train_partitions is None or setting.train_labels is None:
            raise UserError("hierarchy matched on the training split needs one that is labelled at this level")
        notes.append("the method's first partition, matched to the leaf classes on the training split")
        return clusters, (setting.train_labels.numpy(), representation.train_partitions[:, 0].numpy())
    notes.append("the method's first partition, matched to the leaf classes on the judged labels themselves")
    return clusters, (labels, clusters)
