"""Objectives: pure functions on tensors, one file per idea, each in the shape of its equation."""

from .contrastive import in_batch_logits, info_nce_loss, key_and_queue_logits, soft_contrastive, supcon_loss
from .gather import gather
from .relations import (
    coins_loss,
    grafit_loss,
    grafit_relation,
    maskcon_loss,
    maskcon_relation,
    nnclr_loss,
    supcon_queue_loss,
)

__all__ = [
    "coins_loss",
    "gather",
    "grafit_loss",
    "grafit_relation",
    "in_batch_logits",
    "info_nce_loss",
    "key_and_queue_logits",
    "maskcon_loss",
    "maskcon_relation",
    "nnclr_loss",
    "soft_contrastive",
    "supcon_loss",
    "supcon_queue_loss",
]
