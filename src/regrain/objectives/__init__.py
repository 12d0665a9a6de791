"""Objectives: pure functions on tensors, one file per idea, each in the shape of its equation."""

from .contrastive import in_batch_logits as in_batch_logits
from .contrastive import info_nce_loss as info_nce_loss
from .contrastive import key_and_queue_logits as key_and_queue_logits
from .contrastive import soft_contrastive as soft_contrastive
from .contrastive import supcon_loss as supcon_loss
from .gather import gather as gather
from .relations import coins_loss as coins_loss
from .relations import grafit_loss as grafit_loss
from .relations import grafit_relation as grafit_relation
from .relations import maskcon_loss as maskcon_loss
from .relations import maskcon_relation as maskcon_relation
from .relations import nnclr_loss as nnclr_loss
from .relations import supcon_queue_loss as supcon_queue_loss
