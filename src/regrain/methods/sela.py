"""SeLa: self-labelling by optimal transport, without any label (Asano et al., ICLR 2020)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from regrain.data.dataset import Batch
from regrain.methods.assignment import Assignments, over_training_set, transported
from regrain.methods.base import Method, Needs, Scan
from regrain.methods.classifier import labelled_cross_entropy
from regrain.objectives.gather import gather
from regrain.settings import require_range

__all__ = ["SeLa"]


class SeLa(Method):
    r"""Cross entropy to clusters that balanced transport gives to all samples (Asano et al., eq. 3-6).

    Every ``assignment_period`` epochs :math:`q_i = \arg\max_z Q_{zi}`, Q the plan over
    :math:`p(z|x)^\lambda` with equal cluster sizes, in evaluation mode over the un-augmented samples.
    One head; the paper's ten heads and shrinking schedule are not part of it.

    Parameters
    ----------
    encoder, classes
        See :class:`~regrain.methods.base.Method`; no label is read.
    subclasses : int, optional
        Number of clusters, at least 2; default 100, or one for 20 training samples where that is fewer.
    sharpness : float
        lambda of the transport, > 0.
    assignment_period : int
        Epochs between E-steps.
    """

    name: ClassVar[str] = "sela"
    summary: ClassVar[str] = "clusters of equal size by balanced transport, without any label"
    needs: ClassVar[Needs] = Needs(levels=(), views=("strong",))
    training_only: ClassVar[tuple[str, ...]] = ("assignments",)

    def __init__(
        self,
        encoder: nn.Module,
        classes: Sequence[int],
        *,
        subclasses: int | None = None,
        sharpness: float = 25.0,
        assignment_period: int = 1,
    ) -> None:
        super().__init__(encoder, classes)
        count = 100 if subclasses is None else subclasses
        require_range(2, subclasses=count)
        require_range(0, above=True, sharpness=sharpness)
        self.sharpness = sharpness
        self.classifier = nn.Linear(self.encoder_width, count)
        self.assignments = Assignments(count, assignment_period)

    def project(self, batch: Batch) -> dict[str, Tensor]:
        return {"logits": self.classifier(self.encoder(batch.views[0])), "ids": batch.ids}

    def losses_from(self, projected: Mapping[str, Tensor]) -> dict[str, Tensor]:
        codes = self.assignments.lookup(projected["ids"])
        return {"loss": labelled_cross_entropy(projected["logits"], codes), **self.assignments.summary()}

    def before_epoch(self, scan: Scan) -> None:
        if not self.assignments.due():
            return
        scores, _, ids = over_training_set(
            self, scan, lambda x: self.classifier(self.encoder(x)).float().log_softmax(dim=1)
        )
        codes, potentials = transported(scores, sharpness=self.sharpness, warm_start=self.assignments.potentials)
        self.assignments.potentials = potentials
        self.assignments.renew(gather(ids, with_gradient=False), gather(codes, with_gradient=False))

    def subclass_proba(self, x: Any, coarse: Tensor | None = None) -> Tensor:
        result: Tensor = self.classifier(self.encoder(x)).float().softmax(dim=1)
        return result
