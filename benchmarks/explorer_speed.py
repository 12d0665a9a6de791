"""The explorer with 100,000 generated points: start-up, frame time while panning, lasso, actions, memory.

    python benchmarks/explorer_speed.py [--points 100000] [--images] [--keep FOLDER]

Makes a run of vectors (10 superclasses of 5 blobs each), or of small images of them, in a temporary folder, serves it
with `regrain explore`, and drives the system's Chromium, headless, over it. Frame times are the intervals of
requestAnimationFrame while every frame moves the map. Without a GPU Chromium draws WebGL on the processor; on a slow
machine the page draws fewer points while the map moves.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

import regrain

SUPERCLASSES, EACH, WIDTH = 10, 5, 16

PAN = """frames => new Promise(done => {
  const canvas = document.getElementById('points');
  const box = canvas.getBoundingClientRect();
  const times = [];
  const drawn = [];
  const step = now => {
    times.push(now);
    drawn.push(Number(canvas.dataset.drawn));
    if (times.length > frames) return done([times.slice(1).map((t, i) => t - times[i]), drawn]);
    const at = { pointerId: 1, bubbles: true, clientX: box.x + 300 + 150 * Math.sin(times.length / 15),
      clientY: box.y + 300 + 150 * Math.cos(times.length / 15) };
    canvas.dispatchEvent(new PointerEvent('pointermove', at));
    requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
})"""

RENDERER = """() => {
  const gl = document.createElement('canvas').getContext('webgl');
  return gl.getParameter(gl.getExtension('WEBGL_debug_renderer_info')?.UNMASKED_RENDERER_WEBGL ?? gl.RENDERER);
}"""


def png(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.clip(128 + 40 * values, 0, 255).astype(np.uint8).reshape(4, -1)).resize((32, 32)).save(
        stream, "png"
    )
    return stream.getvalue()


def make_run(folder: Path, points: int, images: bool) -> Path:
    """A run of one epoch, with its subclasses found; of images, on their pixels."""
    generator = np.random.default_rng(0)
    subs = np.arange(points) % (SUPERCLASSES * EACH)
    centres = generator.normal(0, 1.2, (SUPERCLASSES * EACH, WIDTH))
    values = centres[subs] + generator.normal(0, 0.5, (points, WIDTH))
    frame = pd.DataFrame(values.astype(np.float32), columns=[f"x{i}" for i in range(WIDTH)])
    if images:
        frame = pd.DataFrame({"image": [png(row) for row in values]})
    frame.insert(0, "kind", [f"kind {sub // EACH}" for sub in subs])
    frame.insert(0, "id", [f"p{row}" for row in range(points)])
    frame.to_parquet(folder / "points.parquet")
    run = regrain.fit(
        "features" if images else "sup-ce",
        folder / "points.parquet",
        encoder="identity" if images else None,
        levels=["kind"],
        id_column="id",
        out=folder / "run",
        settings=[] if images else ["epochs=1", "batch_size=1024"],
        device="cpu",
    )
    regrain.discover(run, each=EACH)
    return folder / "run"


def served(run: Path) -> tuple[subprocess.Popen[str], str, float]:
    """The process, its link, and the seconds until there was one."""
    start = time.perf_counter()
    command = [sys.executable, "-c", "from regrain.cli import main; main()", "explore", str(run), "--json"]
    process = subprocess.Popen([*command, "--device", "cpu"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, json.loads(process.stdout.readline())["link"], time.perf_counter() - start


def resident(pid: int) -> float:
    """Resident memory of a process in MB."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


def said(page: Any, text: str) -> None:
    page.locator("#status").filter(has_text=text).wait_for(timeout=120_000)


def timed(page: Any, action: Any, text: str) -> float:
    """Seconds until the page says so."""
    start = time.perf_counter()
    action()
    said(page, text)
    return time.perf_counter() - start


def lasso(page: Any) -> None:
    page.click("#lasso")
    box = page.locator("#points").bounding_box()
    left, top = box["x"] + 2, box["y"] + 2
    middle, bottom = box["x"] + box["width"] / 2, box["y"] + box["height"] - 2
    page.mouse.move(left, top)
    page.mouse.down()
    for x, y in ((middle, top), (middle, bottom), (left, bottom)):
        page.mouse.move(x, y, steps=5)
    page.mouse.up()


def measure(browser: Any, link: str, pid: int, frames: int) -> None:
    page = browser.new_context(viewport={"width": 1400, "height": 900}).new_page()
    start = time.perf_counter()
    page.goto(link)
    page.wait_for_selector(".tile .face[data-shown], .tile .face svg", timeout=120_000)
    print(f"page open to the first picture of a sample: {time.perf_counter() - start:.2f} s")
    page.wait_for_selector(".group .thumb[data-shown], .group .thumb svg", timeout=120_000)
    print(f"page open to the first picture of a subclass: {time.perf_counter() - start:.2f} s")
    page.wait_for_selector("body[data-ready]", timeout=120_000)
    print(f"drawn by: {page.evaluate(RENDERER)}")
    box = page.locator("#points").bounding_box()
    print(f"map: {box['width']:.0f} x {box['height']:.0f} pixels")
    page.mouse.move(box["x"] + 300, box["y"] + 300)
    page.mouse.down()
    page.evaluate(PAN, 20)
    intervals, drawn = map(sorted, page.evaluate(PAN, frames))
    page.mouse.up()
    at = {share: intervals[min(len(intervals) - 1, int(share * len(intervals)))] for share in (0.5, 0.95, 1.0)}
    print(f"panning, {frames} frames: median {at[0.5]:.1f} ms, 95% {at[0.95]:.1f} ms, longest {at[1.0]:.1f} ms")
    print(f"  points drawn while moving: median {drawn[len(drawn) // 2]:,}, fewest {drawn[0]:,}; all of them at rest")
    page.focus("#points")
    page.keyboard.press("0")
    seconds = timed(page, lambda: lasso(page), "selected on the map")
    selected = page.locator("#selected").inner_text()
    print(f"lasso, {selected}: {seconds:.2f} s from the first mouse event to the tiles")
    seconds = timed(page, lambda: page.click("#confirm"), "confirmed")
    print(f"confirming them, on disk and shown: {seconds:.2f} s")
    print(f"undoing that: {timed(page, lambda: page.click('#undo'), 'undone'):.2f} s")
    page.locator("#superclasses [data-group]").first.click()
    page.wait_for_selector("#group-bar:not([hidden])")
    page.fill("#name", "one")
    print(f"naming a subclass: {timed(page, lambda: page.click('#name-form button'), 'named one'):.2f} s")
    page.click("#group-bar .menu summary")
    print(f"splitting it: {timed(page, lambda: page.click('#split-form button'), 'came out of it'):.2f} s")
    cdp = page.context.new_cdp_session(page)
    cdp.send("HeapProfiler.collectGarbage")
    heap = page.evaluate("performance.memory.usedJSHeapSize") / 2**20
    processes = browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"]
    sizes = {kind: sum(resident(p["id"]) for p in processes if p["type"] == kind) for kind in ("renderer", "GPU")}
    print(f"memory: JavaScript heap, arrays left out, {heap:.0f} MB")
    print(f"memory: renderer {sizes['renderer']:.0f} MB, GPU process {sizes['GPU']:.0f} MB")
    print(f"memory: server {resident(pid):.0f} MB resident")


def main() -> None:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--images", action="store_true")
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--keep", type=Path, help="a folder to make the run in, or where it lies from an earlier time")
    options = parser.parse_args()
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        sys.exit("no Chromium on this machine")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(exist_ok=True)
        run = folder / "run" if (folder / "run").exists() else make_run(folder, options.points, options.images)
        shutil.rmtree(run / "explorer", ignore_errors=True)
        for what in ("first time", "again"):
            process, link, seconds = served(run)
            print(f"`regrain explore` to its link, {what}: {seconds:.1f} s")
            if what == "first time":
                process.terminate()
                process.wait()
        try:
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=program)
                print(f"Chromium {browser.version}; load of the machine {os.getloadavg()[0]:.1f}")
                measure(browser, link, process.pid, options.frames)
                browser.close()
        finally:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    main()
