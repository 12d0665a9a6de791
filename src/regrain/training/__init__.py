"""How a method is trained: the one LightningModule, its loop, loader, optimisers and options."""
