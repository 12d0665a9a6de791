"""Every objective is one graph for ``torch.compile``, and says the same in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from regrain import objectives
from regrain.labels import tree_similarity
from regrain.objectives import PseudoLabels

B, Q, D, C, V = 6, 7, 4, 3, 3

NOT_IN_A_GRAPH = {
    "gather": "rows come from other processes",
    "sinkhorn": "as many passes as it takes, before an epoch",
    "sinkhorn_potentials": "as many passes as it takes, before an epoch",
    "falcon_relations": "a linear assignment by scipy, before an epoch",
    "match_targets": "a linear assignment by scipy, in one step of many",
    "uniform_targets": "once, before training",
}
"""What no step calls in a graph, and why."""


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def unit(*shape: int) -> Tensor:
    return torch.nn.functional.normalize(drawn(*shape), dim=-1)


QUERY, KEY, QUEUE, LOGITS = drawn(B, D), unit(B, D), unit(Q, D), drawn(B, C)
COARSE, OTHERS = torch.tensor([0, 1, -1, 1, 2, 0]), torch.tensor([0, 1, 2, -1, 1, 0, 2])
LABELS = torch.tensor([[0, 0], [0, 1], [1, 2], [1, -1], [-1, -1], [0, 0]])
MASK = torch.arange(B)[:, None] != torch.arange(-1, Q)
SUBCLASSES, UPPER = drawn(5, D), drawn(C, D)
MEMORY = (QUERY, KEY, QUEUE, COARSE, OTHERS)
WEIGHTS = (drawn(8, D), drawn(8, D), drawn(4, D))

GUESSES = (
    PseudoLabels(COARSE.clamp(min=0), torch.linspace(0, 1, B)),
    PseudoLabels(OTHERS[:B].clamp(min=0), torch.ones(B)),
)

CALLS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "aligned_labels": ((LOGITS, torch.full((C,), 1 / C)), {}),
    "angular_info_nce_loss": (
        (QUERY, KEY, unit(C, Q, D), COARSE, UPPER),
        {"temperature": 0.2, "candidate_mask": MASK},
    ),
    "attention_spread": ((drawn(2, B, B).softmax(dim=2),), {}),
    "attention_weights": ((QUERY, None, *WEIGHTS[:2]), {"heads": 2}),
    "confidence_threshold": ((LOGITS[:, 0], 0.5), {}),
    "coins_loss": ((QUERY, KEY, QUEUE, LOGITS, COARSE), {"temperature": 0.1, "weight": 0.5, "candidate_mask": MASK}),
    "cross_instance_attention": ((QUERY, QUEUE, *WEIGHTS), {"heads": 2, "include_self": True}),
    "falcon_losses": (
        (LOGITS, LOGITS, LOGITS[:, None].repeat(1, 2, 1), torch.eye(C).bool(), COARSE),
        {"hardness": 0.5},
    ),
    "grafit_loss": (MEMORY, {"temperature": 0.1, "weight": 0.8, "candidate_mask": MASK}),
    "hmce_loss": ((QUERY, LABELS), {}),
    "in_batch_logits": ((QUERY,), {"temperature": 0.1}),
    "info_nce_loss": ((QUERY, KEY, QUEUE), {"temperature": 0.1, "candidate_mask": MASK}),
    "jaccard_similarity": ((LABELS + 1,), {}),
    "jaccard_supcon_loss": ((QUERY, LABELS + 1), {}),
    "key_and_queue_logits": ((QUERY, KEY, QUEUE), {"temperature": 0.1}),
    "maskcon_loss": (
        MEMORY,
        {"temperature": 0.1, "soft_temperature": 0.05, "weight": 0.5, "candidate_mask": MASK},
    ),
    "maskcon_relation": ((KEY, QUEUE, COARSE, OTHERS), {"soft_temperature": 0.05, "weight": 0.5}),
    "metric_guided_loss": ((QUERY, COARSE, UPPER, 2 - 2 * torch.eye(C)), {}),
    "multilevel_supcon_loss": (((QUERY, LOGITS), LABELS), {"temperatures": (0.5, 0.1), "weights": (0.5, 0.5)}),
    "nearest_entries": ((QUERY, QUEUE, MASK[:, 1:]), {}),
    "nnclr_loss": ((QUERY, drawn(B, D), QUEUE), {"temperature": 0.1, "neighbour_mask": MASK[:, 1:]}),
    "prototype_logits": ((QUERY, UPPER), {}),
    "scan_loss": ((LOGITS, LOGITS.flip(0)), {}),
    "scgm_log_joint": ((QUERY, COARSE, SUBCLASSES, UPPER), {"variance": 0.1}),
    "scgm_losses": (
        (QUERY, COARSE, torch.tensor([0, 4, -1, 1, 2, 3]), SUBCLASSES, UPPER),
        {"variance": 0.1, "superclass_prior": torch.full((C,), 1 / C)},
    ),
    "scgm_owned_posterior": (
        (QUERY, SUBCLASSES, UPPER, torch.arange(5) % C, LOGITS.softmax(dim=1)),
        {"variance": 0.1},
    ),
    "scgm_posterior": ((QUERY, SUBCLASSES, UPPER, COARSE), {"variance": 0.1}),
    "sclre_contrastive_loss": ((QUERY, COARSE), {}),
    "self_classifier_loss": ((drawn(V, B, C),), {"global_views": 2, "class_prior": torch.full((C,), 1 / C)}),
    "self_labelling_loss": ((9 * LOGITS, LOGITS), {}),
    "soft_contrastive": ((LOGITS, LOGITS.softmax(dim=1)), {"candidate_mask": MASK[:, :C]}),
    "supcon_loss": ((QUERY, COARSE), {"temperature": 0.1, "sample": torch.arange(B) // 2, "unknown": "self"}),
    "supcon_queue_loss": (MEMORY, {"temperature": 0.1, "candidate_mask": MASK}),
    "taxon_ssl_loss": (
        ((LOGITS, drawn(B, C)), (drawn(B, C), LOGITS), QUERY, KEY, LABELS[:, :1].repeat(1, 2), GUESSES, (0.5, 0.5)),
        {},
    ),
    "target_loss": ((QUERY, COARSE, unit(C, D)), {}),
    "tsc_loss": (
        (*MEMORY, unit(C, D)),
        {"positives": COARSE[:, None] == OTHERS, "candidate_mask": MASK},
    ),
    "turtle_inner": ((drawn(C, D), QUERY, LOGITS.softmax(dim=1)), {"steps": 3}),
    "turtle_loss": ((LOGITS, LOGITS.flip(0)), {}),
    "weighted_supcon_loss": ((QUERY, tree_similarity, LABELS), {"temperature": 0.1}),
}
"""Arguments of every objective: labels with gaps, masks with holes."""


def test_every_objective_is_here() -> None:
    functions = {name for name in objectives.__all__ if not isinstance(getattr(objectives, name), type)}
    assert {*CALLS, *NOT_IN_A_GRAPH} == functions


@pytest.mark.parametrize("name", CALLS)
def test_an_objective_is_one_graph_and_says_the_same_in_it(name: str) -> None:
    torch.compiler.reset()
    function = getattr(objectives, name)
    compiled = torch.compile(function, fullgraph=True, dynamic=False, backend="aot_eager")
    torch.testing.assert_close(values_and_gradients(compiled, name), values_and_gradients(function, name))


def values_and_gradients(function: Callable[..., Any], name: str) -> list[Tensor]:
    """What an objective returns, and the gradients of its floating-point arguments."""
    args, kwargs = CALLS[name]
    args = tuple(copied(argument) for argument in args)
    found = function(*args, **kwargs)
    results = list(found.values()) if isinstance(found, dict) else list(found) if isinstance(found, tuple) else [found]
    trained = [r for r in results if r.requires_grad]
    if not trained:
        return results
    leaves = [part for a in args for part in (a if isinstance(a, tuple) else (a,))]
    leaves = [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.requires_grad]
    weighed = sum((r.where(r.isfinite(), 0) * torch.arange(1, r.numel() + 1).view_as(r)).sum() for r in trained)
    gradients = torch.autograd.grad(weighed, leaves, allow_unused=True)
    return [*(r.detach() for r in results), *(g for g in gradients if g is not None)]


def copied(argument: Any) -> Any:
    """Floating-point tensors as leaves of their own."""
    if type(argument) is tuple:
        return tuple(map(copied, argument))
    if isinstance(argument, Tensor) and argument.is_floating_point():
        return argument.clone().requires_grad_()
    return argument
