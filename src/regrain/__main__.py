"""``python -m regrain``, and so ``torchrun -m regrain``: the command line."""

from __future__ import annotations

from regrain.cli import main

if __name__ == "__main__":
    main()
