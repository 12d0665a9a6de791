"""An objective alone: tensors in, a scalar out, in a network and a loop that know nothing of Regrain."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch.nn import Linear, ReLU, Sequential

from regrain.objectives import supcon_loss


def main(steps: int = 60) -> tuple[float, float]:
    """SupCon on digits labelled odd or even, a tenth of them unknown; the first and the last loss."""
    x, digit = load_digits(return_X_y=True)
    x, labels = torch.from_numpy(x).float() / 16, torch.from_numpy(digit) % 2
    labels[::10] = -1  # unknown: such rows are left out
    torch.manual_seed(0)
    network = Sequential(Linear(64, 64), ReLU(), Linear(64, 16))
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    losses = []
    for _ in range(steps):
        rows = torch.randint(len(x), (128,))
        views = [x[rows] + 0.1 * torch.randn(128, 64) for _ in range(2)]
        embeddings = network(torch.cat(views))  # (256, 16); the objective scales them to unit length
        loss = supcon_loss(embeddings, labels[rows].repeat(2), temperature=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    print(f"loss {losses[0]:.3f} at the first step, {losses[-1]:.3f} at the last")
    return losses[0], losses[-1]


if __name__ == "__main__":
    main()
