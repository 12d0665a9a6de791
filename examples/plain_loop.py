"""A method in a plain PyTorch loop: no trainer, no run folder, vectors from scikit-learn."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits

from regrain.data.dataset import Batch
from regrain.encoders import build_encoder
from regrain.methods import MaskCon
from regrain.metrics import recall_at_k


def main(epochs: int = 10) -> tuple[float, float]:
    """Train on odd or even alone; recall@1 of the ten digits before and after."""
    x, digit = load_digits(return_X_y=True)
    x, digit = torch.from_numpy(x).float() / 16, torch.from_numpy(digit)
    coarse = digit[:, None] % 2  # (N, 1): one column for each level that the method reads; -1 would say unknown
    ids = torch.arange(len(x))

    torch.manual_seed(0)
    encoder = build_encoder("mlp", modality="vector", sample_shape=(64,), seed=0)
    encoder.take_statistics(x)
    method = MaskCon(encoder, [2], queue_size=512, weight=0.5)
    optimizer = torch.optim.AdamW(method.parameters(), lr=1e-3)

    def recall() -> float:
        method.eval()
        with torch.no_grad():
            found = recall_at_k(method.embed(x), digit, [1])[1]
        method.train()
        return float(found)

    before = recall()
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(128):
            views = [x[rows] + 0.1 * torch.randn(len(rows), 64) for _ in method.needs.views]
            losses = method.losses(Batch(tuple(views), coarse[rows], ids[rows]))
            optimizer.zero_grad()
            losses["loss"].backward()
            optimizer.step()
            method.after_step()  # the momentum twin follows, the keys enter the queue
    after = recall()
    print(f"recall@1 of the digits: {before:.3f} before, {after:.3f} after; last loss {losses['loss'].item():.3f}")
    return before, after


if __name__ == "__main__":
    main()
