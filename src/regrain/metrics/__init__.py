"""Metrics: pure functions on arrays or tensors. A label of -1 is unknown, and its sample is left out."""

from .classification import accuracy, balanced_accuracy, knn_predict
from .clustering import clustering_accuracy, clustering_metrics, purity
from .intervals import bootstrap_interval, student_interval
from .neighbours import nearest_neighbours
from .retrieval import Retrieval, recall_at_k, retrieval_metrics

__all__ = [
    "Retrieval",
    "accuracy",
    "balanced_accuracy",
    "bootstrap_interval",
    "clustering_accuracy",
    "clustering_metrics",
    "knn_predict",
    "nearest_neighbours",
    "purity",
    "recall_at_k",
    "retrieval_metrics",
    "student_interval",
]
