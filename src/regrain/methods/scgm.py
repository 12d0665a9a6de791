"""SCGM: superclass-conditional Gaussian mixtures, generative and with angular contrast (Ni et al., ICLR 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from regrain.checks import BelowOne, Count, CountFromZero, NonNegative, Positive
from regrain.data.dataset import Batch
from regrain.encoders.base import RANDOM, is_pretrained
from regrain.errors import UserError
from regrain.methods.assignment import (
    Assignments,
    count_subclasses,
    drawn_together,
    over_own_share,
    scores_by_block,
)
from regrain.methods.base import Needs, Training, TrainingPass
from regrain.methods.classifier import fitted_factor, labelled_cross_entropy
from regrain.methods.clustering import cluster_within
from regrain.methods.embedder import AngularMemory, EmbedderMethod
from regrain.methods.memory import fit_queue
from regrain.objectives.gathering import from_first, gather
from regrain.objectives.scgm import Mixture, scgm_log_joint, scgm_losses, scgm_owned_posterior

_PER_SUPERCLASS = 10
_ASSIGNMENTS = 40
"""Approximate number of E-steps in a training."""


class SCGM(EmbedderMethod):
    r"""SCGM-G: every superclass is a mixture of r unobserved subclasses on the unit sphere (eq. 1-8).

    Before an epoch, every ``assignment_period`` epochs, all training samples get a subclass
    :math:`q_i = \arg\max_z Q_{zi}` from the transport plan Q of :math:`p(y|z)\, p(z|v,y)`; then

    .. math:: L = CE(y; v \cdot m_y) + \gamma\, ( -\log p(y|z=q) - \log p(z=q|v,y) )

    The means start as the centres of k-means on f(x) within each superclass. A subclass then belongs to the superclass
    that it started in, and keeps the share of it that it started with: the transport gives a sample a subclass of its
    own superclass. With ``initial_means="random"``, as published, unit vectors are drawn, every
    sample may take every subclass, and all subclasses have equal sizes; there the first codes say hardly more than the
    superclass, and training confirms them. At the end each subclass is given to the superclass whose mean it is
    nearest to, and no superclass is left without any.

    At the end of training one factor for the logits :math:`v \cdot m_y` is fitted to the training labels: vectors near
    unit length cannot say more than a few times the chance level.

    Samples of unknown coarse label take part without the terms in y.

    On digits and on Grocery (84.7 against 86.2) its recall@1 is below that of the raw features: use it for hidden
    subclasses and for classifiers from a few labels, not for retrieval (docs/results.md).

    Parameters
    ----------
    embedder_width, embedder_layers
        See :class:`~regrain.methods.embedder.EmbedderMethod`.
    subclasses : int, optional
        r, at least the number C of superclasses. The papers use 100 to 500. Default: 10 a superclass, or fewer where
        there are fewer than 20 training samples each (but at least C); ``regrain tune`` chooses it without fine labels.
    variance, superclass_variance : float
        sigma^2 and sigma_bar^2, > 0.
    mixture : {"superclass", "uniform"}
        Whether p(z|v,y) has the weights pi_z(y) (the paper) or none (the published code).
    superclass_prior : {"uniform", "frequency"}
        p(y): equal, or the shares of the known coarse labels.
    subclass_prior : sequence of r floats, optional
        Relative sizes of the subclasses (of one superclass, where they belong to one). Default: those of the start;
        equal ones with random means.
    rectified : bool
        Whether the classifier sees ReLU(v), as in the published code.
    mixture_weight : float
        gamma, >= 0.
    sharpness : float
        lambda of the transport, > 0.
    assignment_period : int, optional
        Epochs between E-steps. Default: a fortieth of the training, at least 1; that is the paper's 5 for 200 epochs.
    initial_means : {"k-means", "random"}
        Subclass means at the start: centres of k-means within each superclass, or random unit vectors (the paper).
    start_epochs : int, optional
        Epochs in which every E-step starts the means again by k-means on f(x) as it is by then, at least 1. Default: 1,
        or half of the training where the encoder starts from random weights.
    """

    name = "scgm"
    summary = "mixture of hidden subclasses in every superclass, found by balanced transport"
    needs = Needs(levels=("coarse",), views=("jitter",), minimum_classes=2)
    training_only: ClassVar[tuple[str, ...]] = ("assignments", "subclass_sizes")
    fewest_steps = 500
    prior: Tensor
    subclass_sizes: Tensor
    superclass_of: Tensor
    logit_factor: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        classes: Sequence[int],
        *,
        subclasses: Count | None = None,
        variance: Positive = 0.1,
        superclass_variance: Positive = 1.0,
        mixture: Mixture = "superclass",
        superclass_prior: Literal["uniform", "frequency"] = "uniform",
        subclass_prior: tuple[Positive, ...] | None = None,
        rectified: bool = False,
        mixture_weight: NonNegative = 0.5,
        sharpness: Positive = 25.0,
        assignment_period: Count | None = None,
        initial_means: Literal["k-means", "random"] = "k-means",
        start_epochs: Count | None = None,
        **embedder: Any,
    ) -> None:
        super().__init__(encoder, classes, **embedder)
        superclasses = self.classes[0]
        count = _PER_SUPERCLASS * superclasses if subclasses is None else subclasses
        if count < superclasses:
            raise UserError(
                f"subclasses is {count}, fewer than the {superclasses} superclasses: each needs one at least"
            )
        if subclass_prior is not None and len(subclass_prior) != count:
            raise UserError(f"subclass_prior holds {count} positive sizes, one a subclass; got {list(subclass_prior)}")
        self.terms: dict[str, Any] = {
            "variance": variance,
            "superclass_variance": superclass_variance,
            "mixture": mixture,
        }
        self.prior_kind = superclass_prior
        self.sizes_given = subclass_prior is not None
        self.rectified = rectified
        self.mixture_weight = mixture_weight
        self.sharpness = sharpness
        self.initial_means = initial_means
        self.subclass_means = nn.Parameter(functional.normalize(torch.randn(count, self.embedder_width), dim=1))
        self.superclass_weights = nn.Parameter(
            functional.normalize(torch.randn(superclasses, self.embedder_width), dim=1)
        )
        self.register_buffer("prior", torch.full((superclasses,), 1 / superclasses))
        self.register_buffer(
            "subclass_sizes", torch.ones(count) if subclass_prior is None else torch.tensor(subclass_prior)
        )
        self.register_buffer("superclass_of", torch.arange(count) % superclasses)  # until training assigns them
        self.register_buffer("logit_factor", torch.ones(()))
        self.start_epochs = start_epochs or 1
        self.assignments = Assignments(count, assignment_period or 1)
        self._cluster_seed = int(torch.randint(2**31, ()))

    @classmethod
    def fit_settings(cls, settings: dict[str, Any], training: Training) -> list[str]:
        notices, epochs, encoder = count_subclasses(settings, training), training.epochs, training.encoder
        if settings["assignment_period"] is None:
            settings["assignment_period"] = max(1, round(epochs / _ASSIGNMENTS))
        if settings["start_epochs"] is None:
            settings["start_epochs"] = 1
            learns = any(parameter.requires_grad for parameter in encoder.parameters())
            from_random = learns and not is_pretrained(getattr(encoder, "origin", RANDOM))
            if settings["initial_means"] == "k-means" and from_random and epochs > 3:
                half = settings["start_epochs"] = epochs // 2
                notices.append(
                    f"the encoder starts from random weights: k-means begins the subclasses again until epoch {half}"
                )
        return notices

    @property
    def _owned(self) -> bool:
        """Whether each subclass belongs to one superclass during training too."""
        return self.initial_means == "k-means"

    def superclass_logits(self, embedding: Tensor) -> Tensor:
        """v . m_y for unit embeddings (B, d): (B, C)."""
        return (embedding.relu() if self.rectified else embedding) @ self.superclass_weights.T

    def forward_views(self, batch: Batch) -> dict[str, Tensor]:
        return {"embedding": self.embed_projected(batch.views[0]), "labels": batch.labels, "ids": batch.ids}

    def loss(self, embedding: Tensor, labels: Tensor, ids: Tensor) -> dict[str, Tensor]:
        coarse, codes = labels[:, 0], self.assignments.lookup(ids)
        classified = labelled_cross_entropy(self.superclass_logits(embedding), coarse)
        parts = scgm_losses(
            embedding, coarse, codes, self.subclass_means, self.superclass_weights, superclass_prior=self.prior,
            **self.terms,
        )  # fmt: skip
        loss = classified + self.mixture_weight * (parts["subclass"] + parts["superclass"])
        return {"loss": loss, "cross_entropy": classified, **parts, **self.assignments.summary()}

    def before_epoch(self, training_set: TrainingPass) -> None:
        if not self.assignments.due():
            return
        features, labels, own_ids = over_own_share(self, training_set, lambda x: self.encoder(x).float())
        coarse = labels[:, 0]
        if self.assignments.epochs <= self.start_epochs:
            self._start_from(features, coarse)
        with torch.no_grad():
            embedding = self.unit_embedding(features)

        def log_joint(rows: slice) -> Tensor:
            own = coarse[rows]
            scores = scgm_log_joint(
                embedding[rows],
                own,
                self.subclass_means,
                self.superclass_weights,
                superclass_prior=self.prior,
                **self.terms,
            )
            if self._owned:
                scores.masked_fill_((own >= 0)[:, None] & (self.superclass_of != own[:, None]), -torch.inf)
            return scores

        self.assignments.transport(
            scores_by_block(log_joint, (len(embedding), len(self.subclass_means)), embedding.device),
            own_ids,
            sharpness=self.sharpness,
            cluster_marginal=self._marginal(gather(coarse, with_gradient=False)),
        )
        if self.assignments.epochs == 1:
            self.assignments.warn_if_meaningless(*drawn_together(features, own_ids, coarse))

    def _marginal(self, coarse: Tensor) -> Tensor:
        """Return relative subclass sizes (r,) for the transport; within a superclass they add up to its samples."""
        sizes = self.subclass_sizes.double()
        if not self._owned or not bool((coarse >= 0).any()):
            return sizes
        samples = torch.bincount(coarse[coarse >= 0], minlength=self.classes[0]).to(sizes)
        together = torch.zeros_like(samples).index_add_(0, self.superclass_of, sizes)
        return sizes * (samples / together)[self.superclass_of]

    @torch.no_grad()
    def _start_from(self, features: Tensor, coarse: Tensor) -> None:
        """Set the prior, and the means if they come from k-means, from the first pass over the data."""
        self.assignments.potentials = None
        if self.prior_kind == "frequency":
            known = gather(coarse, with_gradient=False)
            counts = torch.bincount(known[known >= 0], minlength=self.classes[0]).float().clamp(min=1e-6)
            self.prior.copy_(counts / counts.sum())
        if not self._owned:
            return
        features, coarse = drawn_together(features, coarse)
        found = cluster_within(features, coarse, total=len(self.subclass_means), seed=self._cluster_seed)
        codes = from_first(found.codes)
        sums = torch.zeros_like(self.subclass_means).index_add_(0, codes, self.unit_embedding(features))
        sizes = torch.bincount(codes, minlength=len(sums))
        means = functional.normalize(sums, dim=1).where((sizes > 0)[:, None], self.subclass_means)
        self.subclass_means.copy_(from_first(means))
        self.superclass_of.copy_(from_first(found.superclass))
        if not self.sizes_given:
            self.subclass_sizes.copy_(sizes.clamp(min=1))

    @torch.no_grad()
    def _nearest_superclasses(self) -> Tensor:
        """Return the superclass with the nearest mean for each subclass, (r,); every superclass gets at least one."""
        from scipy.optimize import linear_sum_assignment

        affinity = (
            functional.normalize(self.subclass_means, dim=1) @ functional.normalize(self.superclass_weights, dim=1).T
        )
        owner = affinity.argmax(dim=1)
        subclasses, superclasses = linear_sum_assignment(affinity.cpu().numpy(), maximize=True)
        owner[torch.from_numpy(subclasses)] = torch.from_numpy(superclasses).to(owner)
        return owner

    def after_training(self, training_set: TrainingPass) -> None:
        if not self._owned:
            self.superclass_of.copy_(from_first(self._nearest_superclasses()))
        found = over_own_share(self, training_set, lambda x: self.encoder(x).float())
        features, labels, ids = drawn_together(*found)
        coarse = labels[:, 0]
        known = coarse >= 0
        with torch.no_grad():
            logits = self.superclass_logits(self.unit_embedding(features[known]))
        self.logit_factor.copy_(from_first(fitted_factor(logits, coarse[known])))
        self.assignments.warn_if_meaningless(features, ids, coarse)
        self.assignments.warn_at_end()

    def class_logits(self, x: Any) -> dict[str, Tensor]:
        return {"coarse": self.logit_factor * self.superclass_logits(self.embed_projected(x))}

    def subclass_proba(self, x: Any, coarse: Tensor | None = None) -> Tensor:
        """sum_y p(y|x) p(z|v,y), y the given superclass where there is one; p(z|v,y) over the subclasses of y."""
        embedding = self.embed_projected(x)
        upper = (self.logit_factor * self.superclass_logits(embedding)).softmax(dim=1)
        if coarse is not None:
            given = functional.one_hot(coarse.clamp(min=0), self.classes[0]).to(upper)
            upper = torch.where((coarse >= 0)[:, None], given, upper)
        return scgm_owned_posterior(
            embedding, self.subclass_means, self.superclass_weights, self.superclass_of, upper, **self.terms
        )


class SCGMA(SCGM):
    """SCGM-A: SCGM-G plus the angular InfoNCE within each superclass (section 3.3), view 2 through a momentum twin.

    The subclass means are trained as in SCGM-G; the released code leaves them at their random start.

    Parameters
    ----------
    temperature : float
        Of the angular contrast, > 0.
    queue_size : int
        Keys kept of each superclass, as published; ``regrain fit`` keeps fewer where a superclass has fewer than twice
        as many training samples in the mean.
    momentum : float
        Of the twin, in [0, 1): the paper's 0.99 for CIFAR-100; 0.999 elsewhere there.
    **mixture
        See :class:`SCGM`.
    """

    name = "scgm-a"
    summary = "SCGM with angular contrast within each superclass"
    needs = Needs(levels=("coarse",), views=("jitter", "jitter"), minimum_classes=2)
    training_only = (*SCGM.training_only, "angular")

    def __init__(
        self,
        encoder: nn.Module,
        classes: Sequence[int],
        *,
        temperature: Positive = 0.2,
        queue_size: CountFromZero = 65536,
        momentum: BelowOne = 0.99,
        **mixture: Any,
    ) -> None:
        super().__init__(encoder, classes, **mixture)
        self.angular = AngularMemory(
            encoder, self.embedder, self.embedder_width, self.classes[0],
            temperature=temperature, queue_size=queue_size, momentum=momentum,
        )  # fmt: skip

    @classmethod
    def fit_settings(cls, settings: dict[str, Any], training: Training) -> list[str]:
        notices = fit_queue(settings, training, of_each=training.classes[0])
        return [*notices, *super().fit_settings(settings, training)]

    def forward_views(self, batch: Batch) -> dict[str, Tensor]:
        return super().forward_views(batch) | {"key": self.angular.twin.key(batch.views[1])}

    def loss(  # type: ignore[override]  # with the key of view 2
        self, embedding: Tensor, key: Tensor, labels: Tensor, ids: Tensor
    ) -> dict[str, Tensor]:
        losses = super().loss(embedding, labels, ids)
        contrast = self.angular.loss(embedding, key, labels[:, 0], ids, self.superclass_weights)
        return losses | {"loss": losses["loss"] + contrast, "angular": contrast}

    def after_step(self) -> None:
        self.angular.after_step(self.encoder, self.embedder)
