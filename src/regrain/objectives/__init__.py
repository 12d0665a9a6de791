"""Objectives: pure functions on tensors, one file per idea, each in the shape of its equation.

An argument of another shape or type than documented, or a number outside its range, is a UserError.
"""

from .angular import angular_info_nce_loss
from .attention import attention_spread, attention_weights, cross_instance_attention
from .contrastive import in_batch_logits, info_nce_loss, key_and_queue_logits, soft_contrastive, supcon_loss
from .falcon import falcon_losses, falcon_relations
from .gathering import gather
from .hierarchy import (
    hmce_loss,
    jaccard_similarity,
    jaccard_supcon_loss,
    metric_guided_loss,
    multilevel_supcon_loss,
    prototype_logits,
    weighted_supcon_loss,
)
from .relations import (
    coins_loss,
    grafit_loss,
    maskcon_loss,
    maskcon_relation,
    nearest_entries,
    nnclr_loss,
    supcon_queue_loss,
)
from .scan import scan_loss, self_labelling_loss
from .scgm import scgm_log_joint, scgm_losses, scgm_owned_posterior, scgm_posterior
from .self_classifier import self_classifier_loss
from .targets import match_targets, sclre_contrastive_loss, target_loss, tsc_loss, uniform_targets
from .taxon_ssl import PseudoLabels, aligned_labels, confidence_threshold, taxon_ssl_loss
from .transport import sinkhorn, sinkhorn_potentials
from .turtle import turtle_inner, turtle_loss

__all__ = ["PseudoLabels", "aligned_labels", "angular_info_nce_loss", "attention_spread", "attention_weights",
           "coins_loss", "confidence_threshold", "cross_instance_attention", "falcon_losses", "falcon_relations",
           "gather", "grafit_loss", "hmce_loss", "in_batch_logits", "info_nce_loss", "jaccard_similarity",
           "jaccard_supcon_loss", "key_and_queue_logits", "maskcon_loss", "maskcon_relation", "match_targets",
           "metric_guided_loss", "multilevel_supcon_loss", "nearest_entries", "nnclr_loss", "prototype_logits",
           "scan_loss", "scgm_log_joint", "scgm_losses", "scgm_owned_posterior", "scgm_posterior",
           "sclre_contrastive_loss", "self_classifier_loss", "self_labelling_loss", "sinkhorn", "sinkhorn_potentials",
           "soft_contrastive", "supcon_loss", "supcon_queue_loss", "target_loss", "taxon_ssl_loss", "tsc_loss",
           "turtle_inner", "turtle_loss", "uniform_targets", "weighted_supcon_loss"]  # fmt: skip
