"""How long `regrain --help`, `regrain methods`, `import regrain` and `regrain.fit` take, each in a fresh interpreter.

    python benchmarks/startup.py [--rounds 5]

Beside each: a bare interpreter, and the imports it cannot do without. Target: `regrain --help` under a second.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import time

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import typer, rich": [sys.executable, "-c", "import typer, rich.console"],
    "import regrain": [sys.executable, "-c", "import regrain"],
    "regrain --help": ["regrain", "--help"],
    "regrain methods": ["regrain", "methods"],
    "import torch": [sys.executable, "-c", "import torch"],
    "import regrain.objectives": [sys.executable, "-c", "import regrain.objectives"],
    "import lightning": [sys.executable, "-c", "import lightning"],
    "regrain.fit": [sys.executable, "-c", "import regrain; regrain.fit"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    if shutil.which("regrain") is None:
        sys.exit("regrain is not on the PATH: activate the environment it is installed in")
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds + 1):
        for name, command in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values[1:]) for name, values in seconds.items()}  # the first one fills caches
    for name, median in medians.items():
        print(f"{name:28} {median:6.2f} s")
    needed = medians["import typer, rich"]
    print(f"regrain --help: {medians['regrain --help']:.2f} s (target 1), of which {needed:.2f} s are Python and typer")


if __name__ == "__main__":
    main()
