"""What names given in the explorer are worth: a scripted user names discovered subclasses, and a classifier learns it.

    python benchmarks/explorer_names.py RUN --level fine [--names 30]

RUN is copied, `regrain explore` serves the copy, and the script makes the page's own HTTP calls. It goes through the
largest subclasses, looks at the ten exemplars of each (that is all it ever sees of the hidden level), deselects those
that are of another class than most, and gives that class's name. The export then goes to `regrain adapt`. Beside it: as
many random training samples labelled one by one as names were given, as exemplars were confirmed, and as exemplars were
shown; each five times. Judged on all samples of the split test.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import uuid
from collections import Counter
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd

import regrain


class Client:
    """What the page asks of the server."""

    def __init__(self, link: str) -> None:
        parts = urlsplit(link)
        self.host, self.cookie, self.seq = parts.netloc, "", 0
        _, headers, _ = self._ask("GET", f"/?{parts.query}")
        self.cookie = headers["set-cookie"].split(";")[0]

    def get(self, path: str) -> Any:
        return json.loads(self._ask("GET", path)[2])

    def post(self, path: str, body: dict[str, Any]) -> Any:
        return json.loads(self._ask("POST", path, json.dumps(body))[2])

    def act(self, kind: str, **fields: Any) -> None:
        action = {"kind": kind, "action": str(uuid.uuid4()), "seen": self.seq, **fields}
        self.seq = self.post("/api/act", action)["seq"]

    def _ask(self, method: str, path: str, body: str | None = None) -> tuple[int, dict[str, str], bytes]:
        connection = HTTPConnection(self.host, timeout=600)
        headers = {"Cookie": self.cookie}
        if body is not None:
            headers |= {"Origin": f"http://{self.host}", "Content-Type": "application/json"}
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        if answer.status >= 400:
            sys.exit(f"{path}: {answer.status} {content.decode()}")
        return answer.status, dict(answer.getheaders()), content


def name_subclasses(client: Client, truth: dict[str, str], names: int) -> tuple[Path, int, int]:
    """Name the largest subclasses; gives the export's folder, and how many exemplars were shown and confirmed."""
    groups = client.get("/api/changes?since=0")["groups"]
    largest = sorted(groups, key=lambda g: -g["size"])[:names]
    shown = confirmed = 0
    for group in largest:
        rows = client.get(f"/api/members/{group['number']}")["exemplars"]
        cells = client.get("/api/cells?rows=" + ",".join(map(str, rows)))
        seen = {cell["row"]: truth[cell["id"]] for cell in cells}
        name, _ = Counter(seen.values()).most_common(1)[0]
        right = [row for row, label in seen.items() if label == name]
        client.act("name", group=group["number"], name=name, samples=right)
        shown, confirmed = shown + len(rows), confirmed + len(right)
    return Path(client.post("/api/export", {"format": "csv"})["folder"]), shown, confirmed


def accuracy(run: regrain.Run, support: pd.DataFrame, level: str, test: dict[str, str]) -> float:
    """Share of the test samples that `regrain adapt` on this support calls by their label."""
    with tempfile.TemporaryDirectory() as folder:
        adapted = regrain.adapt(run, support, Path(folder, "adapted"))
        classifier = adapted.classifier
        assert classifier is not None
        part = run.splits()["test"]
        found = classifier.name(run.embed(part)).codes.tolist()
    told = dict(zip(map(str, part.ids), (classifier.classes[code] for code in found), strict=True))
    return statistics.mean(told[i] == label for i, label in test.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--level", required=True, help="the hidden level that names are judged by")
    parser.add_argument("--names", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        copied = Path(shutil.copytree(options.run, Path(folder, "run"), ignore=shutil.ignore_patterns("explorer")))
        run = regrain.Run.open(copied)
        parts = run.splits()
        truth = {
            name: {
                str(i): part.labels.names(options.level)[code]
                for i, code in zip(part.ids, part.labels.level(options.level).tolist(), strict=True)
                if code >= 0
            }
            for name, part in parts.items()
        }
        command = [sys.executable, "-c", "from regrain.cli import main; main()", "explore", str(copied), "--json"]
        server = subprocess.Popen([*command, "--map", "pca"], stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        try:
            client = Client(json.loads(server.stdout.readline())["link"])
            export, shown, confirmed = name_subclasses(client, truth["train"], options.names)
        finally:
            server.terminate()
            server.wait()
        support = pd.read_csv(export / "confirmed.csv", dtype=str)
        classes = support.iloc[:, 1].nunique()
        value = accuracy(run, support, options.level, truth["test"])
        ceiling = statistics.mean(label in set(support.iloc[:, 1]) for label in truth["test"].values())
        print(f"{options.names} names given, of {classes} classes; {shown} exemplars shown, {confirmed} confirmed")
        print(f"named in the explorer: {100 * value:.2f}% of {len(truth['test'])} test samples right")
        print(f"  (named classes hold {100 * ceiling:.2f}% of the test samples)")
        for count, what in (
            (options.names, "names given"),
            (confirmed, "exemplars confirmed"),
            (shown, "exemplars shown"),
        ):
            values = []
            for seed in range(options.repeats):
                drawn = np.random.default_rng(seed).permutation(sorted(truth["train"]))[:count]
                random = pd.DataFrame({"id": drawn, options.level: [truth["train"][i] for i in drawn]})
                values.append(100 * accuracy(run, random, options.level, truth["test"]))
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            mean = statistics.mean(values)
            print(f"{count} random labels (as many as {what}): {mean:.2f}% +- {spread:.2f} over {len(values)} draws")


if __name__ == "__main__":
    main()
