"""SCGM: superclass-conditional Gaussian mixtures, generative and with angular contrast (Ni et al., ICLR 2022)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from regrain.data.dataset import Batch
from regrain.errors import UserError
from regrain.methods.assignment import Assignments, over_training_set, transported
from regrain.methods.base import Needs, Scan
from regrain.methods.classifier import labelled_cross_entropy
from regrain.methods.embedder import EmbedderMethod
from regrain.methods.memory import AngularMemory
from regrain.methods.subclusters import cluster_within
from regrain.objectives.gather import from_first, gather
from regrain.objectives.scgm import Mixture, scgm_log_joint, scgm_losses, scgm_posterior
from regrain.settings import require_range

__all__ = ["SCGM", "SCGMA"]

_PER_SUPERCLASS = 10


class SCGM(EmbedderMethod):
    r"""SCGM-G: every superclass is a mixture of r unobserved subclasses on the unit sphere (eq. 1-8).

    Before an epoch, every ``assignment_period`` epochs, all training samples get a subclass
    :math:`q_i = \arg\max_z Q_{zi}` from the transport plan Q of :math:`p(y|z)\, p(z|v,y)` with equal subclass sizes;
    then

    .. math:: L = CE(y; v \cdot m_y) + \gamma\, ( -\log p(y|z=q) - \log p(z=q|v,y) )

    Samples of unknown coarse label take part without the terms in y.

    Parameters
    ----------
    encoder, classes, embedder_width, embedder_layers
        See :class:`~regrain.methods.embedder.EmbedderMethod`; ``classes`` holds the number C of coarse classes.
    subclasses : int, optional
        r, at least C. The papers use 100 to 500. Default: 10 a superclass, or fewer where there are fewer than 20
        training samples each (but at least C); ``regrain tune`` chooses it without fine labels.
    variance, superclass_variance : float
        sigma^2 and sigma_bar^2, > 0.
    mixture : {"superclass", "uniform"}
        Whether p(z|v,y) has the weights pi_z(y) (the paper) or none (the published code).
    superclass_prior : {"uniform", "frequency"}
        p(y): equal, or the shares of the known coarse labels.
    subclass_prior : sequence of r floats, optional
        Relative sizes of the subclasses; default equal.
    rectified : bool
        Whether the classifier sees ReLU(v), as in the published code.
    mixture_weight : float
        gamma, >= 0.
    sharpness : float
        lambda of the transport, > 0.
    assignment_period : int
        Epochs between E-steps.
    initial_means : {"random", "k-means"}
        Subclass means at the start: random unit vectors, or the centres of k-means within each superclass.
    """

    name: ClassVar[str] = "scgm"
    summary: ClassVar[str] = "mixture of hidden subclasses in every superclass, found by balanced transport"
    needs: ClassVar[Needs] = Needs(levels=("coarse",), views=("strong",), minimum_classes=2)
    training_only: ClassVar[tuple[str, ...]] = ("assignments",)
    prior: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        classes: Sequence[int],
        *,
        subclasses: int | None = None,
        variance: float = 0.1,
        superclass_variance: float = 1.0,
        mixture: Mixture = "superclass",
        superclass_prior: Literal["uniform", "frequency"] = "uniform",
        subclass_prior: tuple[float, ...] | None = None,
        rectified: bool = False,
        mixture_weight: float = 0.5,
        sharpness: float = 25.0,
        assignment_period: int = 5,
        initial_means: Literal["random", "k-means"] = "random",
        **embedder: Any,
    ) -> None:
        super().__init__(encoder, classes, **embedder)
        superclasses = self.classes[0]
        count = _PER_SUPERCLASS * superclasses if subclasses is None else subclasses
        if count < superclasses:
            raise UserError(
                f"subclasses is {count}, fewer than the {superclasses} superclasses: each needs one at least"
            )
        require_range(0, above=True, variance=variance, superclass_variance=superclass_variance, sharpness=sharpness)
        require_range(0, mixture_weight=mixture_weight)
        if subclass_prior is not None and not (
            len(subclass_prior) == count and all(0 < size < math.inf for size in subclass_prior)
        ):
            raise UserError(f"subclass_prior holds {count} positive sizes, one a subclass; got {list(subclass_prior)}")
        self.terms: dict[str, Any] = {
            "variance": variance,
            "superclass_variance": superclass_variance,
            "mixture": mixture,
        }
        self.prior_kind = superclass_prior
        self.subclass_sizes = None if subclass_prior is None else torch.tensor(subclass_prior)
        self.rectified = rectified
        self.mixture_weight = mixture_weight
        self.sharpness = sharpness
        self.initial_means = initial_means
        self.subclass_means = nn.Parameter(functional.normalize(torch.randn(count, self.embedder_width), dim=1))
        self.superclass_weights = nn.Parameter(
            functional.normalize(torch.randn(superclasses, self.embedder_width), dim=1)
        )
        self.register_buffer("prior", torch.full((superclasses,), 1 / superclasses))
        self.assignments = Assignments(count, assignment_period)
        self._cluster_seed = int(torch.randint(2**31, ()))

    def superclass_logits(self, embedding: Tensor) -> Tensor:
        """v . m_y for unit embeddings (B, d): (B, C)."""
        return (embedding.relu() if self.rectified else embedding) @ self.superclass_weights.T

    def project(self, batch: Batch) -> dict[str, Tensor]:
        return {"embedding": self.embed(batch.views[0]), "labels": batch.labels, "ids": batch.ids}

    def losses_from(self, projected: Mapping[str, Tensor]) -> dict[str, Tensor]:
        embedding, coarse = projected["embedding"], projected["labels"][:, 0]
        codes = self.assignments.lookup(projected["ids"])
        classified = labelled_cross_entropy(self.superclass_logits(embedding), coarse)
        parts = scgm_losses(
            embedding,
            coarse,
            codes,
            self.subclass_means,
            self.superclass_weights,
            superclass_prior=self.prior,
            **self.terms,
        )
        loss = classified + self.mixture_weight * (parts["subclass"] + parts["superclass"])
        return {"loss": loss, "cross_entropy": classified, **parts, **self.assignments.summary()}

    def before_epoch(self, scan: Scan) -> None:
        if not self.assignments.due():
            return
        embedding, labels, ids = over_training_set(self, scan, self.embed)
        coarse = labels[:, 0]
        if self.assignments.potentials is None:
            self._start_from(embedding, coarse)
        with torch.no_grad():
            log_joint = scgm_log_joint(
                embedding,
                coarse,
                self.subclass_means,
                self.superclass_weights,
                superclass_prior=self.prior,
                **self.terms,
            )
        codes, potentials = transported(
            log_joint,
            sharpness=self.sharpness,
            cluster_marginal=self.subclass_sizes,
            warm_start=self.assignments.potentials,
        )
        self.assignments.potentials = potentials
        self.assignments.renew(gather(ids, with_gradient=False), gather(codes, with_gradient=False))

    @torch.no_grad()
    def _start_from(self, embedding: Tensor, coarse: Tensor) -> None:
        """What the first look at the data decides: the prior, and the means where they come from k-means."""
        embedding, coarse = gather(embedding, with_gradient=False), gather(coarse, with_gradient=False)
        if self.prior_kind == "frequency":
            counts = torch.bincount(coarse[coarse >= 0], minlength=self.classes[0]).float().clamp(min=1e-6)
            self.prior.copy_(counts / counts.sum())
        if self.initial_means == "k-means":
            found = cluster_within(embedding, coarse, total=len(self.subclass_means), seed=self._cluster_seed)
            self.subclass_means.copy_(from_first(found.centres))

    def predict_proba(self, x: Any, level: str) -> Tensor:
        if level != "coarse":
            return super().predict_proba(x, level)
        return self.superclass_logits(self.embed(x)).softmax(dim=1)

    def subclass_proba(self, x: Any, coarse: Tensor | None = None) -> Tensor:
        return scgm_posterior(
            self.embed(x),
            self.subclass_means,
            self.superclass_weights,
            coarse,
            superclass_prior=self.prior,
            **self.terms,
        )


class SCGMA(SCGM):
    """SCGM-A: SCGM-G beside the angular InfoNCE within each superclass (section 3.3), view 2 through a momentum twin.

    The subclass means are trained as in SCGM-G; the released code leaves them at their random start.

    Parameters
    ----------
    encoder, classes
        See :class:`SCGM`.
    temperature : float
        Of the angular contrast, > 0.
    queue_size : int
        Keys kept, shared out equally over the superclasses.
    momentum : float
        Of the twin, in [0, 1): the paper's 0.99 for CIFAR-100; 0.999 elsewhere there.
    **mixture
        See :class:`SCGM`.
    """

    name: ClassVar[str] = "scgm-a"
    summary: ClassVar[str] = "SCGM with angular contrast within each superclass"
    needs: ClassVar[Needs] = Needs(levels=("coarse",), views=("strong", "strong"), minimum_classes=2)
    training_only: ClassVar[tuple[str, ...]] = ("assignments", "angular")

    def __init__(
        self,
        encoder: nn.Module,
        classes: Sequence[int],
        *,
        temperature: float = 0.2,
        queue_size: int = 65536,
        momentum: float = 0.99,
        **mixture: Any,
    ) -> None:
        super().__init__(encoder, classes, **mixture)
        self.angular = AngularMemory(
            encoder,
            self.embedder,
            self.embedder_width,
            self.classes[0],
            temperature=temperature,
            queue_size=queue_size,
            momentum=momentum,
        )

    def project(self, batch: Batch) -> dict[str, Tensor]:
        return super().project(batch) | {"key": self.angular.key(batch.views[1])}

    def losses_from(self, projected: Mapping[str, Tensor]) -> dict[str, Tensor]:
        losses = super().losses_from(projected)
        contrast = self.angular.loss(
            projected["embedding"],
            projected["key"],
            projected["labels"][:, 0],
            projected["ids"],
            self.superclass_weights,
        )
        return losses | {"loss": losses["loss"] + contrast, "angular": contrast}

    def after_step(self) -> None:
        self.angular.after_step(self.encoder, self.embedder)
