"""Metrics: pure functions on arrays or tensors. A label of -1 is unknown, and its sample is left out.

A UserError reports an argument of another shape than documented, a number outside its range, values that are not
finite, and labels none of which is known.
"""

from .classification import accuracy, balanced_accuracy, calibration_error, confidence_error, knn_predict
from .clustering import (
    clustering_accuracy,
    clustering_metrics,
    match_clusters,
    neighbour_information,
    novel_accuracy,
    purity,
)
from .few_shot import Episodes, FewShot, draw_episodes, few_shot_accuracy
from .held_out import Separability, held_out_margins, separability
from .hierarchy import HierarchyMetrics, hierarchy_metrics, path_metrics
from .intervals import bootstrap_interval, mean_interval, student_interval
from .logistic import LogisticRegressions, fit_logistic_regressions
from .neighbours import nearest_neighbours
from .noisy_labels import LabelQuality, label_quality, neighbour_probabilities
from .retrieval import Retrieval, recall_at_k, retrieval_metrics
from .selective import (
    ThresholdAnswers,
    answers_at,
    fewest_samples,
    guaranteed_threshold,
    risk_coverage_area,
    root_threshold,
)
from .severity import hops, least_cost_classes

__all__ = ["Episodes", "FewShot", "HierarchyMetrics", "LabelQuality", "LogisticRegressions", "Retrieval",
           "Separability", "ThresholdAnswers", "accuracy", "answers_at", "balanced_accuracy", "bootstrap_interval",
           "calibration_error", "clustering_accuracy", "clustering_metrics", "confidence_error", "draw_episodes",
           "few_shot_accuracy", "fewest_samples", "fit_logistic_regressions", "guaranteed_threshold",
           "held_out_margins", "hierarchy_metrics", "hops", "knn_predict", "label_quality", "least_cost_classes",
           "match_clusters", "mean_interval", "nearest_neighbours", "neighbour_information", "neighbour_probabilities",
           "novel_accuracy", "path_metrics", "purity", "recall_at_k", "retrieval_metrics", "risk_coverage_area",
           "root_threshold", "separability", "student_interval"]  # fmt: skip
