"""The page in a real browser: by mouse, by keyboard, in two windows, and after a kill."""

from __future__ import annotations

import io
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pytest
from browser import Visit
from explorer_hand import Hand, Served
from pages import trained as trained_pages
from PIL import Image

import regrain
from regrain.explorer import collection
from regrain.explorer.server import bound_socket, web_server
from regrain.explorer.session import Session


@pytest.fixture
def link(session: Session) -> Iterator[Callable[[], str]]:
    """The open exploration, served from a thread: gives links."""
    with _served(session) as link:
        yield link


@contextmanager
def _served(session: Session) -> Iterator[Callable[[], str]]:
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


def _in_menu(page: Any, selector: str) -> None:
    """Open the menu that holds a control."""
    page.locator("details.menu").filter(has=page.locator(selector)).locator("summary").click()


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
    _in_menu(page, "#merge")
    page.select_option("#merge", str(numbers[1]))
    page.click("#merge-form button")
    _said(page, "merged into wren")
    assert numbers[1] not in session.state.groups
    assert not page.locator("#merge").is_visible()  # the menu closes behind an action
    _in_menu(page, "#parts")
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
    _in_menu(page, "#outlier")
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
    press("j")
    _shows(page, "[data-group][aria-current=true]", "sd")
    proposed = page.locator("#name").get_attribute("placeholder")
    press("n")
    press("Enter")
    _said(page, f"named {proposed}; its 10 exemplars confirmed")
    press("u")
    _said(page, "undone")
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
    press("j")
    page.wait_for_selector("#group-bar:not([hidden])")
    press("s")
    assert page.evaluate("document.activeElement.id") == "parts"
    press("Escape")
    assert page.evaluate("document.activeElement.textContent") == "Merge, split"
    assert not page.locator("#parts").is_visible()
    page.focus("#search")
    reached = set()
    for _ in range(60):
        press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    assert {"undo", "export", "all", "lasso", "points", "label", "accept", "grid"} <= reached


def test_keys_ahead_of_the_server_act_on_what_was_asked_for(
    link: Callable[[], str], visit: Visit, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, members = threading.Event(), session.members
    monkeypatch.setattr(session, "members", lambda number: go.wait(60) and members(number))
    page = _ready(visit(link()))
    press, numbers = page.keyboard.press, page.locator("#superclasses [data-group]").all()
    first, second = (int(leaf.get_attribute("data-group")) for leaf in numbers[:2])
    press("j")
    press("n")
    page.keyboard.type("wren")
    press("Enter")
    go.set()
    _said(page, "named wren; its 10 exemplars confirmed")
    go.clear()
    press("j")
    press("n")
    assert page.locator("#name").input_value() == ""
    press("Enter")
    go.set()
    _said(page, f"named {session.state.groups[second].proposed}; its 10 exemplars confirmed")
    assert session.state.groups[first].name == "wren"
    assert session.state.groups[second].name == session.state.groups[second].proposed

    press("Home")
    press("Shift+ArrowRight")
    with page.expect_response("**/api/members/*"):
        Hand(session)("confirm", samples=members(second)["rows"][-1:])  # in another window
    _shows(page, "[data-group][aria-current=true]", "11/24")
    page.wait_for_timeout(200)
    press("Shift+ArrowRight")
    assert page.locator("#selected").inner_text() == "3 selected"


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
    _in_menu(page, "#select-all")
    page.click("#select-all")
    page.click("#accept")
    _said(page, "22 samples left out, confirmed or marked as outliers")
    assert session.state.group[first] == numbers[1]
    assert session.state.outlier.nonzero()[0].tolist() == [outlier]

    page.locator(f"[data-group='{numbers[-1]}']").click()
    page.wait_for_selector("#group-bar:not([hidden])")
    page.locator(".tile").first.click()
    _in_menu(page, "#move")
    page.select_option("#move", str(numbers[0]))
    page.click("#move-form button")
    _said(page, "1 sample moved to wren; 1 sample to another superclass")
    _in_menu(page, "#merge")
    page.select_option("#merge", str(numbers[0]))
    page.click("#merge-form button")
    _said(page, ", from superclass <img src=x onerror=alert(1)>tool to animal")


def test_a_screenful_of_pictures_is_one_request(visit: Visit, tmp_path: Path) -> None:
    run = trained_pages("image", tmp_path / "run")
    regrain.discover(run, each=2)
    session = Session(run)
    asked: list[str] = []
    with _served(session) as link:
        page = _ready(visit(link()))
        page.locator(".group .thumb[data-shown]").first.wait_for()  # so that it asks for nothing more before it reloads
        page.on("request", lambda request: asked.append(urlsplit(request.url).path + "?" + urlsplit(request.url).query))
        page.reload()
        _ready(page)
        page.locator(".tile .face[data-shown]").first.wait_for()
        page.locator(".group .thumb[data-shown]").first.wait_for()
        assert page.locator(".group .thumb[data-shown]").count() == 4 * len(session.state.groups)
        tiles = page.locator(".tile .face[data-shown]").count()
        sheets = [one for one in asked if one.startswith("/api/tiles")]
        assert tiles > 12
        assert 1 <= len(sheets) <= 2  # the samples' and the subclasses'
        paths = [one.partition("?")[0] for one in asked]
        with_proposals = paths.index("/api/proposals") if "/api/proposals" in paths else len(paths)
        assert paths.index("/api/tiles") < with_proposals  # the first picture waits for nothing that it does not show
        page.locator(".tile").first.click()
        page.keyboard.press("v")
        address = page.locator("#picture img").get_attribute("src")
        assert address == f"/api/picture/0?v={session.collection.key}"
        assert all(sheet.endswith(f"&v={session.collection.key}") for sheet in sheets)
    session.close()


@pytest.mark.parametrize(("width", "height"), [(390, 844), (512, 300), (1024, 600), (1280, 800)])
def test_samples_come_first_and_nothing_covers_what_is_done(
    link: Callable[[], str], visit: Visit, width: int, height: int
) -> None:
    page = _ready(visit(link(), width=width, height=height))
    first = page.locator(".tile").first
    first.wait_for()
    assert first.bounding_box()["y"] < max(height, 500)
    if width < 700:
        page.click("#panes [data-pane=tree]")
        assert not page.locator("#samples").is_visible()
    page.locator("#superclasses [data-group]").first.click()  # by Playwright, only where nothing covers it
    page.wait_for_selector("#group-bar:not([hidden])")
    page.fill("#name", "wren")
    page.click("#name-form button")
    _said(page, "named wren")
    page.locator(".tile").first.click()
    _in_menu(page, "#outlier")
    box = page.locator("#outlier").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width
    page.click("#outlier")
    _said(page, "marked as outliers")
    if width < 1100:
        page.click("#panes [data-pane=map]")
    assert page.locator("#points").bounding_box()["width"] > 200
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_map_moves_once_t_sne_is_there(run_folder: Path, visit: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regrain.explorer.collection._QUICK", 10)
    go, real = threading.Event(), collection.embedding_map
    monkeypatch.setattr(
        collection, "embedding_map", lambda *a, kind, **k: (kind == "pca" or go.wait(60)) and real(*a, kind=kind, **k)
    )
    session = Session(regrain.Run.open(run_folder, device="cpu"))
    with _served(session) as link:
        page = _ready(visit(link()))
        assert page.locator("#mapping").is_visible()
        before = session.positions
        _draws(page, before)
        go.set()
        page.locator("#mapping").wait_for(state="hidden")
        assert session.map_number == 1
        assert not np.allclose(before, session.positions)
        _draws(page, session.positions)
        assert not _drawn(page, before).all()
    session.close()
    again = Session(regrain.Run.open(run_folder, device="cpu"))
    assert np.array_equal(again.positions, session.positions)
    assert again.collection.better_map is None
    again.close()


def _drawn(page: Any, positions: np.ndarray) -> np.ndarray:
    """Whether the map has ink where each sample lies (n,): by the pixels on the screen."""
    points = page.locator("#points")
    pixels = np.asarray(Image.open(io.BytesIO(points.screenshot())).convert("RGB")).astype(int)
    height, width = pixels.shape[:2]
    columns, rows = ((np.array([1, -1]) * 0.94 * positions * min(width, height) + [width, height]) / 2).astype(int).T
    paper = pixels[height // 2, 2]
    return np.asarray(np.abs(pixels[rows, columns] - paper).sum(axis=1) > 30)


def _draws(page: Any, positions: np.ndarray) -> None:
    """Wait until the map shows every sample at its position."""
    for _ in range(100):
        drawn = _drawn(page, positions)
        if drawn.all():
            return
        page.wait_for_timeout(100)
    assert drawn.all(), f"{drawn.sum()} of {len(drawn)} samples are where they belong"


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


def test_what_another_browser_does_while_the_page_opens_is_shown(
    link: Callable[[], str], visit: Visit, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    acted, points, superclasses = threading.Event(), session.points, session.superclasses

    def points_of_before() -> tuple[int, bytes]:
        before = points()
        if not acted.is_set():
            Hand(session)("confirm", samples=[0])
        acted.set()
        return before

    monkeypatch.setattr(session, "points", points_of_before)
    monkeypatch.setattr(session, "superclasses", lambda: acted.wait(60) and superclasses())  # so the overview is newer
    page = _ready(visit(link()))
    _shows(page, "#progress", "1 of 144 samples confirmed · 1 action saved")
    page.locator("#tile-0 .confirmed").wait_for()


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
    if width < 700:
        page.click("#panes [data-pane=tree]")
    page.locator("#superclasses [data-group]").first.wait_for()
    assert page.evaluate(CONTRAST)[1] == []
    page.locator("#superclasses [data-group]").first.click()
    page.wait_for_selector(".tile .confirmed")
    page.locator(".tile").first.click()
    for menu in ("#outlier", "#merge", "#link"):
        _in_menu(page, menu)
        seen, poor = page.evaluate(CONTRAST)
        assert seen > 40
        assert poor == []
        assert page.evaluate(NAMELESS) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.keyboard.press("Escape")
    if width < 700:
        page.click("#panes [data-pane=map]")
    page.select_option("#colour", "said")
    _shows(page, "#legend", "confirmed")
    assert page.evaluate(CONTRAST)[1] == []


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
