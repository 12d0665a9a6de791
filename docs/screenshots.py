"""The screenshots in docs/images/: a report on scikit-learn's digits, opened in Debian's Chromium.

python docs/screenshots.py          # needs regrain[dev], and a program `chromium`
"""

from __future__ import annotations

import shutil
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


if __name__ == "__main__":
    main()
