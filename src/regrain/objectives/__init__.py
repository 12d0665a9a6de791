"""Objectives: pure functions on tensors, one file per idea, each in the shape of its equation."""

from .angular import angular_info_nce_loss
from .contrastive import in_batch_logits, info_nce_loss, key_and_queue_logits, soft_contrastive, supcon_loss
from .gather import gather
from .relations import (
    coins_loss,
    grafit_loss,
    grafit_relation,
    maskcon_loss,
    maskcon_relation,
    nearest_neighbours,
    nnclr_loss,
    supcon_queue_loss,
)
from .scan import scan_loss, self_labelling_loss
from .scgm import scgm_log_joint, scgm_losses, scgm_posterior
from .self_classifier import self_classifier_loss
from .sinkhorn import sinkhorn, sinkhorn_potentials
from .turtle import turtle_inner, turtle_loss

__all__ = [
    "angular_info_nce_loss",
    "coins_loss",
    "gather",
    "grafit_loss",
    "grafit_relation",
    "in_batch_logits",
    "info_nce_loss",
    "key_and_queue_logits",
    "maskcon_loss",
    "maskcon_relation",
    "nearest_neighbours",
    "nnclr_loss",
    "scan_loss",
    "scgm_log_joint",
    "scgm_losses",
    "scgm_posterior",
    "self_classifier_loss",
    "self_labelling_loss",
    "sinkhorn",
    "sinkhorn_potentials",
    "soft_contrastive",
    "supcon_loss",
    "supcon_queue_loss",
    "turtle_inner",
    "turtle_loss",
]
