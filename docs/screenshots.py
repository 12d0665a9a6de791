"""The screenshots in docs/: a report on photos of groceries, and the explorer, opened in Debian's Chromium.

REGRAIN_DATA=DATA python docs/screenshots.py    # needs regrain[dev,vision], a program `chromium`, the data `grocery`
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

import regrain
from regrain.report import report
from regrain.runs.discovery import Subclass

IMAGES = Path(__file__).parent / "images"
SHOTS = (
    ("report-map", "#map", 1120, 760, "light"),
    ("report-retrieval", "#retrieval", 1120, 700, "dark"),
    ("report-phone", "#few-shot", 390, 780, "light"),
)
"""Name, section that stands on top, width, height, colours."""


def main() -> None:
    program = shutil.which("chromium")
    if program is None:
        sys.exit("no program `chromium`: `apt-get install chromium` brings it")
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        run = regrain.fit("maskcon", "grocery", frozen=True, epochs=10, out=f"{folder}/groceries", progress=True)
        page = report(run, say=print)
        browser = playwright.chromium.launch(executable_path=program)
        for name, section, width, height, colours in SHOTS:
            _shoot(browser, page, section, width, height, colours, IMAGES / f"{name}.png")
        found = regrain.discover(run, each=10)
        shoot_explorer(browser, run.path, _looked_at(run, found.subclasses), IMAGES.parent / "explorer.png")
        browser.close()


def _shoot(browser: Browser, page: Path, section: str, width: int, height: int, colours: str, out: Path) -> None:
    opened = browser.new_page(
        viewport={"width": width, "height": height}, color_scheme="dark" if colours == "dark" else "light"
    )
    opened.goto(page.resolve().as_uri())
    opened.evaluate(f"document.querySelector('{section}').scrollIntoView()")
    opened.wait_for_timeout(500)  # samples are drawn as they come near
    opened.screenshot(path=out)
    opened.close()
    print(f"{out}: {out.stat().st_size / 1000:.0f} kB")


def _looked_at(run: regrain.Run, subclasses: Sequence[Subclass]) -> dict[int, str]:
    """The name that somebody who looks at a subclass gives it: the class of most of its exemplars."""
    classes: dict[str, str] = {}
    for split in run.splits().values():
        classes |= zip(map(str, split.ids), map(str, split.labels.column("coarse")), strict=True)
    return {s.number: Counter(classes[exemplar] for exemplar in s.exemplars).most_common(1)[0][0] for s in subclasses}


def shoot_explorer(browser: Browser, run: Path, names: Mapping[int, str], out: Path) -> None:
    """Four subclasses get the name of most of their exemplars; the fourth one is shown."""
    command = [sys.executable, "-m", "regrain", "explore", str(run), "--map", "tsne", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        opened = browser.new_page(viewport={"width": 1280, "height": 760})
        opened.goto(json.loads(process.stdout.readline())["link"])
        opened.wait_for_selector("body[data-ready]")
        opened.locator("#mapping").wait_for(state="hidden", timeout=600_000)
        for _ in range(4):
            opened.keyboard.press("j")
            opened.wait_for_selector(".tile")
            number = opened.locator("#superclasses [aria-current=true]").get_attribute("data-group")
            name = names[int(number or -1)]
            opened.keyboard.press("n")
            opened.keyboard.type(name)
            opened.keyboard.press("Enter")
            opened.locator("#status").filter(has_text=f"named {name}").wait_for()
        opened.wait_for_timeout(5000)  # the proposals come
        opened.screenshot(path=out)
        opened.close()
        process.terminate()
    print(f"{out}: {out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
