"""The screenshots in docs/: a report on scikit-learn's digits, and the explorer, opened in Debian's Chromium.

python docs/screenshots.py          # needs regrain[dev], and a program `chromium`
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

import regrain
from regrain.report import report

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
        run = regrain.fit(
            "maskcon",
            "digits",
            encoder="conv4",
            settings=["epochs=20"],
            out=f"{folder}/maskcon-digits-s0",
            progress=True,
        )
        page = report(run, say=print)
        browser = playwright.chromium.launch(executable_path=program)
        for name, section, width, height, colours in SHOTS:
            _shoot(browser, page, section, width, height, colours, IMAGES / f"{name}.png")
        regrain.discover(run)
        shoot_explorer(browser, run.path, IMAGES.parent / "explorer.png")
        browser.close()


def _shoot(browser: Browser, page: Path, section: str, width: int, height: int, colours: str, out: Path) -> None:
    scheme = "dark" if colours == "dark" else "light"
    opened = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    opened.goto(page.resolve().as_uri())
    opened.evaluate(f"document.querySelector('{section}').scrollIntoView()")
    opened.wait_for_timeout(500)  # samples are drawn as they come near
    opened.screenshot(path=out)
    opened.close()
    print(f"{out}: {out.stat().st_size / 1000:.0f} kB")


def shoot_explorer(browser: Browser, run: Path, out: Path) -> None:
    """Three subclasses get a name; the third one is shown."""
    command = [sys.executable, "-m", "regrain", "explore", str(run), "--map", "tsne", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        opened = browser.new_page(viewport={"width": 1280, "height": 760})
        opened.goto(json.loads(process.stdout.readline())["link"])
        opened.wait_for_selector("body[data-ready]")
        opened.locator("#mapping").wait_for(state="hidden", timeout=600_000)
        for name in ("six", "zero", "eight"):
            opened.keyboard.press("j")
            opened.wait_for_selector(".tile")
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
