"""A method in a bare ``lightning.Trainer``: the adapter makes views and steps, everything else is Lightning's."""

from __future__ import annotations

import lightning
import torch

import regrain
from regrain.encoders import build_encoder
from regrain.methods import SCGM
from regrain.model import channel_statistics
from regrain.training.adapter import Adapter
from regrain.training.loader import Loader
from regrain.training.options import TrainingOptions
from regrain.views import ImageViews


def main(epochs: int = 3) -> list[float]:
    """Train on the digits' groups; the mean loss of every epoch."""
    train = regrain.load("digits").split("train").with_levels(["group"])
    mean, std = channel_statistics(train)
    views = ImageViews(["strong"], size=8, mean=mean, std=std, seed=0)
    encoder = build_encoder("conv4", modality="image", sample_shape=(1, 8, 8), seed=0)
    torch.manual_seed(0)
    method = SCGM(encoder, [len(train.labels.names("group"))], subclasses=12)

    losses: list[float] = []

    class Record(lightning.Callback):
        def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
            losses.append(module.epoch_means()["loss"])

    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=[Record()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,  # the loader shares out its batches itself
    )
    options = TrainingOptions(epochs=epochs, batch_size=128, learning_rate=0.05)
    trainer.fit(Adapter(method, views, options), Loader(train, batch_size=128, seed=0))
    print("loss by epoch:", ", ".join(f"{loss:.3f}" for loss in losses))
    return losses


if __name__ == "__main__":
    main()
