"""The one LightningModule: drives any method in any ``lightning.Trainer``."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from regrain.data.dataset import Batch
from regrain.errors import UserError, warn
from regrain.methods.base import READ_EVERY, Method
from regrain.training.device import scan_dtype
from regrain.training.loader import Loader, derived_seed, view_keys
from regrain.training.optim import build_optimizer, build_schedule
from regrain.training.options import TrainingOptions
from regrain.training.scan import in_pinned_memory, scan_views


class Adapter(lightning.LightningModule):
    """Trains a method on batches of (raw samples, labels, ids).

    Parameters
    ----------
    views : nn.Module
        Called as ``views(raw, ids, epoch)`` on the device after the transfer; ``views.plain(raw)`` is the un-augmented
        view.
    seed : int
        Dropout and the like are seeded by (seed, step), so that a resumed run draws what an uninterrupted one does.
    """

    def __init__(self, method: Method, views: nn.Module, options: TrainingOptions, *, seed: int = 0) -> None:
        super().__init__()
        self.method = method
        self.views = views
        self.options = options
        self.seed = seed
        self.batches_seen = 0
        self._sums: dict[str, Tensor] = {}
        self._batches_in_epoch = 0
        self._concluded = False
        self._warns_unlabelled = True
        self._recent: deque[float] = deque(maxlen=5)
        self._chunks: tuple[list[Batch], dict[str, Tensor], list[int]] | None = None

    # -- data ------------------------------------------------------------------------------------------------------

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        labels = batch[1]
        # Other processes' shares of the batch are not seen here, and a device is not waited for.
        looks = self._warns_unlabelled and self.trainer.world_size == 1 and labels.device.type == "cpu"
        if looks and labels.shape[1] and not bool((labels >= 0).any()):
            self._warns_unlabelled = False
            warn(
                f"a batch of {len(labels)} holds no known label: {self.method.name} learns from it only what needs "
                "none, if anything; a larger training.batch_size mends it (said once)"
            )
        return tuple(in_pinned_memory(part) for part in batch) if self.device.type == "cuda" else batch

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Batch:
        raw, labels, ids, *visits = batch
        draws = view_keys(ids, visits[0]) if visits else ids
        return Batch(self.views(raw, draws, self.current_epoch), labels, ids)

    def on_train_epoch_start(self) -> None:
        self._sums = {}
        self._batches_in_epoch = 0
        self.method.before_epoch(self._training_set)

    def on_train_start(self) -> None:
        self._concluded = False
        loader = self.trainer.train_dataloader
        if isinstance(loader, Loader):
            loader.rank, loader.world_size = self.global_rank, self.trainer.world_size
            loader.epoch = self.current_epoch
            loader.start = self._batches_in_epoch

    def _training_set(self) -> Iterator[tuple[Any, Tensor, Tensor]]:
        loader = self.trainer.train_dataloader
        if not isinstance(loader, Loader):
            raise UserError(
                f"{self.method.name} looks over the whole training set before an epoch: train with a regrain Loader"
            )
        share = {"rank": self.global_rank, "world_size": self.trainer.world_size}
        dtype = scan_dtype(self.options.precision, self.device)
        return scan_views(loader.dataset, self.views, self.method, self.device, dtype, workers=loader.workers, **share)

    # -- a step ----------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        torch.manual_seed(derived_seed(self.seed, self.batches_seen, self.global_rank))
        self.batches_seen += 1
        size = self.options.chunk_size
        losses = self.method.losses(batch) if size is None else self._losses_in_chunks(batch, size)
        self._keep(losses)
        return losses["loss"]

    def _losses_in_chunks(self, batch: Batch, size: int) -> dict[str, Tensor]:
        """Embed chunk by chunk without a graph, and let the loss meet the embeddings as leaves (Gao et al. 2021)."""
        count = len(batch.ids)
        parts = max(1, min(-(-count // size), count // 2))  # near-equal, never of one sample: batch norm needs two
        edges = [count * part // parts for part in range(parts + 1)]
        chunks = [_rows(batch, slice(*ends)) for ends in itertools.pairwise(edges)]
        seeds = [int(torch.randint(2**62, ())) for _ in chunks]
        projected = []
        for chunk, seed in zip(chunks, seeds, strict=True):
            torch.manual_seed(seed)
            with torch.no_grad():
                projected.append(self.method.forward_views(chunk))
        leaves = {name: torch.cat([p[name] for p in projected]) for name in projected[0]}
        for leaf in leaves.values():
            leaf.requires_grad_(leaf.is_floating_point())
        self._chunks = (chunks, leaves, seeds)
        return self.method.loss(**leaves)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        super().backward(loss, *args, **kwargs)
        if self._chunks is None:
            return
        chunks, leaves, seeds = self._chunks
        self._chunks = None
        start = 0
        for chunk, seed in zip(chunks, seeds, strict=True):
            torch.manual_seed(seed)
            with self.trainer.precision_plugin.forward_context():
                projected = self.method.forward_views(chunk)
            rows = slice(start, start + len(chunk.ids))
            outputs = {n: p for n, p in projected.items() if p.requires_grad and leaves[n].grad is not None}
            gradients = [leaves[n].grad[rows] for n in outputs]  # type: ignore[index]  # filtered above
            torch.autograd.backward(list(outputs.values()), gradients)
            start = rows.stop

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        self.method.after_step()

    def _keep(self, losses: dict[str, Tensor]) -> None:
        for name, value in losses.items():
            value = value.detach().float()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._batches_in_epoch += 1
        loss = losses["loss"].detach()
        if loss.device.type == "cpu" or self.batches_seen % READ_EVERY == 0:
            self._require_finite_losses()
            self._recent.append(float(loss))

    def require_finite(self) -> None:
        """Raise a UserError unless all losses of the epoch and all weights are finite; nothing else is ever saved."""
        self._require_finite_losses()
        if not all(bool(parameter.isfinite().all()) for parameter in self.method.parameters()):
            raise UserError(f"a weight is not finite any more {self._circumstances()}")

    def _require_finite_losses(self) -> None:
        total = self._sums.get("loss")
        if total is not None and not bool(total.isfinite()):
            raise UserError(f"the loss became {float(total)} {self._circumstances()}")

    def _circumstances(self) -> str:
        seen = ", ".join(f"{value:.4g}" for value in self._recent) or "none"
        return (
            f"at step {self.batches_seen} (epoch {self.current_epoch + 1}), or on a GPU up to {READ_EVERY} "
            f"steps before; losses before: {seen}. Lower training.learning_rate, add training.warmup_epochs or "
            "training.clip_gradient, or set training.precision=float32; the last checkpoint in the run folder is "
            "from before"
        )

    # -- the end of an epoch, optimiser, checkpoint ----------------------------------------------------------------

    def epoch_means(self) -> dict[str, float]:
        """The mean of every term over the batches of this epoch so far."""
        return {name: float(value) / self._batches_in_epoch for name, value in self._sums.items()}

    def on_train_epoch_end(self) -> None:
        self.require_finite()
        self.log_dict(self.epoch_means(), sync_dist=False, rank_zero_only=True)
        loader = self.trainer.train_dataloader
        if isinstance(loader, Loader):
            loader.epoch = self.current_epoch + 1
        if self.current_epoch + 1 == self.trainer.max_epochs:
            self._conclude()  # before the last checkpoint: a run cut off after it has no step left to take

    def on_train_end(self) -> None:
        if not self._concluded:
            self._conclude()

    def _conclude(self) -> None:
        self.method.after_training(self._training_set)
        self._concluded = True

    def configure_optimizers(self) -> Any:
        options = self.options
        steps = int(self.trainer.estimated_stepping_batches)
        per_epoch = steps / max(1, self.trainer.max_epochs or options.epochs)
        optimizer = build_optimizer(
            self.method,
            name=options.optimizer,
            learning_rate=options.learning_rate,
            momentum=options.momentum,
            weight_decay=options.weight_decay,
            encoder_learning_rate=options.encoder_learning_rate,
            layer_decay=options.layer_decay,
            fused=options.precision != "fp16" or options.clip_gradient is None,
        )
        schedule = build_schedule(
            optimizer,
            name=options.schedule,
            steps=steps,
            warmup_steps=round(options.warmup_epochs * per_epoch),
            warmup_start=options.warmup_start,
            restart_steps=None if options.restart_epochs is None else max(1, round(options.restart_epochs * per_epoch)),
            final_factor=options.final_factor,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        within = self._batches_in_epoch < int(self.trainer.num_training_batches)
        checkpoint["regrain"] = {
            "batches_seen": self.batches_seen,
            "batches_in_epoch": self._batches_in_epoch if within else 0,
            "sums": {name: value.cpu() for name, value in self._sums.items()},
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["regrain"]
        self.batches_seen = state["batches_seen"]
        self._batches_in_epoch = state["batches_in_epoch"]
        self._sums = {name: value.to(self.device) for name, value in state["sums"].items()}


def _rows(batch: Batch, rows: slice) -> Batch:
    def cut(view: Any) -> Any:
        return {name: value[rows] for name, value in view.items()} if isinstance(view, dict) else view[rows]

    return Batch(tuple(cut(view) for view in batch.views), batch.labels[rows], batch.ids[rows])
