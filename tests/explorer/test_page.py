"""The page in a real browser: by mouse, by keyboard, in two windows, and after a kill."""

from __future__ import annotations

import io
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from browser import Visit
from explorer_hand import Hand, Served
from PIL import Image

from regrain.explorer.server import bound_socket, web_server
from regrain.explorer.session import Session


@pytest.fixture
def link(session: Session) -> Iterator[Callable[[], str]]:
    """The open exploration, served from a thread: gives links."""
    links: list[str] = []
    bound = bound_socket(0)
    server = web_server(session, bound, links.append)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    yield links.pop
    server.should_exit = True
    thread.join(10)
    assert not thread.is_alive()
    bound.close()


def _ready(page: Any) -> Any:
    page.wait_for_selector("body[data-ready]")
    return page


def _shows(page: Any, selector: str, text: str) -> None:
    """Wait for a text; Playwright's own waiting for functions needs eval, which the page forbids."""
    page.locator(selector).filter(has_text=text).first.wait_for()


def _said(page: Any, text: str) -> None:
    _shows(page, "#status", text)


def _lasso_left_half(page: Any) -> None:
    page.click("#lasso")
    box = page.locator("#points").bounding_box()
    left, top = box["x"] + 2, box["y"] + 2
    middle, bottom = box["x"] + box["width"] / 2, box["y"] + box["height"] - 2
    page.mouse.move(left, top)
    page.mouse.down()
    for x, y in ((middle, top), (middle, bottom), (left, bottom)):
        page.mouse.move(x, y, steps=3)
    page.mouse.up()


def test_by_mouse_lasso_name_merge_split_undo_and_export(
    link: Callable[[], str], visit: Visit, session: Session
) -> None:
    page = _ready(visit(link()))
    assert "token" not in page.url
    assert page.locator("#superclasses details").count() == 2
    assert "<img src=x onerror=alert(1)>tool" in page.locator("#superclasses").inner_text()

    _lasso_left_half(page)
    expected = int((session.collection.positions[:, 0] < 0).sum())
    assert 0 < expected < len(session.collection)
    _said(page, f"{expected} samples selected on the map")
    page.fill("#label", "left <b>half</b>")
    page.click("#label-form button")
    _said(page, f"{expected} samples labelled left <b>half</b>")
    assert session.state.confirmed.sum() == expected
    page.click("#undo")
    _said(page, "undone")
    assert not session.state.confirmed.any()

    first, second = page.locator("#superclasses [data-group]").all()[:2]
    numbers = [int(leaf.get_attribute("data-group")) for leaf in (first, second)]
    first.click()
    page.wait_for_selector("#group-bar:not([hidden])")
    page.locator(".tile", has_text="exemplar").first.click()
    page.fill("#name", "wren")
    page.click("#name-form button")
    _said(page, "named wren; its 9 exemplars confirmed")
    assert session.state.groups[numbers[0]].name == "wren"
    assert session.state.confirmed.sum() == 9
    page.select_option("#merge", str(numbers[1]))
    page.click("#merge-form button")
    _said(page, "merged into wren")
    assert numbers[1] not in session.state.groups
    page.click("#split-form button")
    _said(page, "came out of it")
    assert len(session.state.groups) == 6
    for _ in range(2):
        page.click("#undo")
    page.locator(f"[data-group='{numbers[1]}']").wait_for()
    page.click("#redo")
    page.locator(f"[data-group='{numbers[1]}']").wait_for(state="detached")

    page.locator("#superclasses [data-group]").last.click()
    _shows(page, "#view-title", "animal")
    page.locator(".tile").first.click()
    page.click("#outlier")
    _said(page, "1 sample marked as outliers")
    assert session.state.outlier.sum() == 1

    page.click("#export")
    page.click("#export-form button")
    page.wait_for_selector("#exported pre")
    assert "regrain fit mixed" in page.locator("#exported").inner_text()
    labels = next(session.folder.glob("exports/*/labels.csv"))
    assert pd.read_csv(labels)["subclass"].eq("wren").sum() >= 9


def test_by_keyboard_alone(link: Callable[[], str], visit: Visit, session: Session) -> None:
    page = _ready(visit(link()))
    press = page.keyboard.press
    press("d")
    _said(page, "proposals need two classes with confirmed training samples; there are none so far")
    for name in ("wren", "owl"):
        press("j")
        page.wait_for_selector("#group-bar:not([hidden])")
        page.wait_for_selector("[data-group][aria-current=true]")
        press("n")
        page.keyboard.type(name)
        press("Enter")
        _said(page, f"named {name}")
    assert [g.name for g in session.state.groups.values() if g.name] == ["wren", "owl"]
    session.newest_proposals(60)
    page.focus("#grid")
    press("ArrowRight")
    press("End")
    press("1")
    _said(page, "1 sample labelled")
    press("u")
    _said(page, "undone")
    press("Control+Shift+z")
    _said(page, "redone")
    press("Home")
    press("Shift+ArrowRight")
    press("Shift+ArrowRight")
    assert page.locator("#selected").inner_text() == "3 selected"
    press("c")
    _said(page, "3 samples confirmed")
    press("d")
    _shows(page, "#view-title", "Most doubtful")
    press("/")
    page.keyboard.type("owl")
    press("Enter")
    _said(page, "1 subclass")
    page.focus("#points")
    press("Enter")
    _said(page, "144 samples selected on the map")
    press("?")
    assert page.locator("#help-dialog").is_visible()
    press("Escape")
    page.focus("#search")
    reached = set()
    for _ in range(60):
        press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    assert {"undo", "export", "all", "lasso", "points", "label", "accept", "grid"} <= reached


def test_accepting_leaves_out_what_is_settled_and_crossing_superclasses_is_said(
    link: Callable[[], str], visit: Visit, session: Session
) -> None:
    hand, numbers = Hand(session), sorted(session.state.groups)
    for number, name in zip(numbers[:2], ("wren", "owl"), strict=True):
        hand("name", group=number, name=name, samples=session.members(number)["exemplars"])
    first, outlier = session.members(numbers[0])["rows"][-2:]
    hand("move", moves=[{"group": numbers[1], "samples": [first]}])
    hand("outlier", samples=[outlier], marked=True)
    session.newest_proposals(60)
    page = _ready(visit(link()))
    page.click("#select-all")
    page.click("#accept")
    _said(page, "22 samples left out, confirmed or marked as outliers")
    assert session.state.group[first] == numbers[1]
    assert session.state.outlier.nonzero()[0].tolist() == [outlier]

    page.locator(f"[data-group='{numbers[-1]}']").click()
    page.wait_for_selector("#group-bar:not([hidden])")
    page.locator(".tile").first.click()
    page.select_option("#move", str(numbers[0]))
    page.click("#move-form button")
    _said(page, "1 sample moved to wren; 1 sample to another superclass")
    page.select_option("#merge", str(numbers[0]))
    page.click("#merge-form button")
    _said(page, ", from superclass <img src=x onerror=alert(1)>tool to animal")


def test_pictures_are_asked_for_by_the_key_of_their_data(
    link: Callable[[], str], visit: Visit, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.BytesIO()
    Image.new("L", (8, 8)).save(stream, format="PNG")
    monkeypatch.setattr(type(session.collection), "modality", "image")
    monkeypatch.setattr("regrain.explorer.server.picture", lambda *_, **__: stream.getvalue())
    page = _ready(visit(link()))
    page.locator(".tile").first.click()
    page.keyboard.press("v")
    addresses = {page.locator(place).first.get_attribute("src") for place in (".tile img", "#picture img")}
    assert addresses == {f"/api/{kind}/0?v={session.collection.key}" for kind in ("tile", "picture")}


def test_two_browsers_show_the_same(link: Callable[[], str], visit: Visit, session: Session) -> None:
    one, other = _ready(visit(link())), _ready(visit(link()))
    one.locator("#superclasses [data-group]").first.click()
    one.wait_for_selector("#group-bar:not([hidden])")
    one.fill("#name", "wren")
    one.click("#name-form button")
    _shows(one, "#superclasses", "wren")
    _shows(other, "#superclasses", "wren")
    other.click("#undo")
    one.locator("#superclasses").filter(has_text="wren").wait_for(state="detached")
    assert [entry.event["kind"] for entry in session.journal.entries] == ["name", "undo"]


CONTRAST = """() => {
  const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = node => {
    for (let at = node; at; at = at.parentElement) {
      const colour = numbers(getComputedStyle(at).backgroundColor);
      if (colour.length < 4 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const poor = [];
  let seen = 0;
  while (walker.nextNode()) {
    const box = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !box.checkVisibility()) continue;
    const [a, b] = [light(numbers(getComputedStyle(box).color)), light(behind(box))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    seen += 1;
    if (ratio < 4.5) poor.push([walker.currentNode.textContent, ratio]);
  }
  return [seen, poor];
}"""

NAMELESS = """() => [...document.querySelectorAll('button, input, select, canvas, [role=listbox], [role=option]')]
  .filter(one => one.getAttribute('aria-hidden') !== 'true')
  .filter(one => !(one.getAttribute('aria-label') || one.textContent.trim() && one.tagName !== 'SELECT'
    || [...(one.labels ?? [])].some(label => label.textContent.trim())))
  .map(one => one.outerHTML.slice(0, 80))"""


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_text_is_readable_and_controls_have_names(
    link: Callable[[], str], visit: Visit, session: Session, width: int, dark: bool
) -> None:
    for number, name in zip(sorted(session.state.groups)[:2], ("wren", "owl"), strict=True):
        exemplars = session.members(number)["exemplars"]
        request = {"kind": "name", "group": number, "name": name, "samples": exemplars}
        session.act({**request, "seen": session.state.seq, "action": f"action-{number}"})
    outliers = np.flatnonzero(session.state.group == sorted(session.state.groups)[0])[-2:].tolist()
    session.act(
        {"kind": "outlier", "samples": outliers, "marked": True, "seen": session.state.seq, "action": "action-o"}
    )
    session.newest_proposals(60)
    page = _ready(visit(link(), width=width, dark=dark))
    page.locator("#superclasses [data-group]").first.click()
    page.wait_for_selector(".tile .confirmed")
    page.locator(".tile").first.click()
    seen, poor = page.evaluate(CONTRAST)
    assert seen > 40
    assert poor == []
    assert page.evaluate(NAMELESS) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_killed_and_opened_again_nothing_is_lost(browser: Any, run_folder: Path) -> None:
    with Served(run_folder) as served:
        page = _ready_in(browser, served.link)
        page.locator("#superclasses [data-group]").first.click()
        page.wait_for_selector("#group-bar:not([hidden])")
        page.fill("#name", "wren")
        page.click("#name-form button")
        _said(page, "named wren")
        served.process.send_signal(signal.SIGKILL)
        served.process.wait()
        page.click("#undo")
        _said(page, "the server does not answer")
        page.context.close()
    with (run_folder / "explorer" / "journal.jsonl").open("ab") as stream:
        stream.write(b'{"event":{"kind":"und')
    with Served(run_folder) as again:
        page = _ready_in(browser, again.link)
        assert "wren" in page.locator("#superclasses").inner_text()
        assert "1 action saved" in page.locator("#progress").inner_text()
        assert "was damaged" in page.locator("#status").inner_text()
        page.context.close()


def _ready_in(browser: Any, link: str) -> Any:
    """A page whose console may complain, as it does when its server is killed."""
    page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    page.goto(link)
    return _ready(page)
