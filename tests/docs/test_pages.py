"""What pages promise: every method and protocol has its section, every command exists, the worked example works."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import shlex
from pathlib import Path
from types import ModuleType

import pytest
import torch
from support import Command
from tutorial_pages import blocks_of, masked, printed
from typer.main import get_command

import regrain
from regrain import Run
from regrain.cli.lists import ADVICE
from regrain.cli.main import app
from regrain.data import Batch
from regrain.encoders import build_encoder
from regrain.errors import UserError
from regrain.evaluation import PROTOCOLS
from regrain.methods import METHODS

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]


def sections(*pages: Path) -> dict[str, str]:
    """Second-level heading -> its text, over some pages."""
    found = {}
    for page in pages:
        for part in re.split(r"^## ", page.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
            heading, _, text = part.partition("\n")
            assert heading not in found, f"two sections are called {heading}"
            found[heading] = text
    return found


METHOD_PAGES = sorted(page for page in (DOCS / "methods").glob("*.md") if page.name != "index.md")
METHOD_SECTIONS = sections(*METHOD_PAGES)
PROTOCOL_SECTIONS = sections(DOCS / "protocols.md")


def test_the_method_pages_hold_every_method_and_no_other() -> None:
    assert set(METHOD_SECTIONS) == set(METHODS)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_method_section_is_whole(name: str) -> None:
    text = METHOD_SECTIONS[name]
    for topic in ("Assumes**", "Equation**", "ails when**", "Cost**", "Paper against code**", "Measured on**: "):
        assert topic in text, topic


@pytest.mark.parametrize("page", [page.stem for page in METHOD_PAGES])
def test_a_method_page_has_its_picture(page: str) -> None:
    assert f"](../images/methods-{page}.png)" in (DOCS / "methods" / f"{page}.md").read_text(encoding="utf-8")
    assert (DOCS / "images" / f"methods-{page}.png").exists()


@pytest.mark.parametrize("name", [*PROTOCOLS, "low-data", "label-noise", "isotropy"])
def test_a_protocol_section_is_whole(name: str) -> None:
    text = PROTOCOL_SECTIONS[name]
    for topic in ("Definition**", "Interval**", "When**", "Command**: `regrain"):
        assert topic in text, topic


@pytest.mark.parametrize("page", [DOCS / "index.md", ROOT / "README.md"], ids=lambda page: page.name)
def test_a_page_gives_the_advice_of_the_command(page: Path) -> None:
    text = re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", page.read_text(encoding="utf-8"))
    (table,) = re.findall(r"^\| you have \|.*?\n\n", text, re.DOTALL | re.MULTILINE)
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in table.splitlines()[2:] if line]
    assert rows == list(ADVICE)
    assert "a strong frozen encoder" in rows[0][2]


def test_the_advice_names_methods_and_settings() -> None:
    known = {*METHODS, "weight"}
    for *_, advice in ADVICE:
        assert set(re.findall(r"`([a-z-]+)`", advice)) <= known


@pytest.mark.parametrize("package", ["", ".data", ".evaluation", ".methods", ".metrics", ".objectives"])
def test_the_api_pages_hold_every_public_name(package: str) -> None:
    module = importlib.import_module(f"regrain{package}")
    pages = "\n".join(page.read_text(encoding="utf-8") for page in (DOCS / "api").glob("*.md"))
    shown = set(re.findall(r"^::: ([\w.]+)$", pages, re.MULTILINE))
    for name in module.__all__:
        home = getattr(getattr(module, name), "__module__", "")
        if home.startswith("regrain"):
            assert shown & {home, f"{home}.{name}", f"regrain{package}.{name}"}, f"{home}.{name}"


def problem_of(command: str, words: list[str]) -> str | None:
    """What the command line says against these words after ``regrain COMMAND``, which are not run; None if nothing."""
    try:
        get_command(app).commands[command].make_context(command, words)
    except Exception as error:  # of click, or of the copy of click in newer typers
        if hasattr(error, "exit_code"):
            return error.format_message() if hasattr(error, "format_message") else None  # --help has none
        raise
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_of_a_page_exist(page: Path) -> None:
    known = get_command(app).commands
    text = page.read_text(encoding="utf-8")
    fenced = "\n".join(re.findall(r"^ *```(?:sh|console|text)\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE))
    lines = re.findall(r"^ *(?:\$ |\w+=\S+ )?regrain ([a-z].*)", fenced.replace("\\\n", " "), re.MULTILINE)
    for line in lines:
        command, *words = shlex.split(line.partition("   (")[0], comments=True)
        assert command in known, f"regrain {command}"
        assert not (problem := problem_of(command, words)), f"regrain {line}: {problem}"
    prose = re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)
    for code in re.findall(r"`regrain ([a-z][^`]*)`", prose):  # parts of commands are allowed, wrong ones are not
        command, *words = shlex.split(code)
        assert command in known, f"regrain {command}"
        options = {name for parameter in known[command].params for name in (*parameter.opts, *parameter.secondary_opts)}
        assert {word for word in words if re.fullmatch(r"--[a-z][a-z-]+", word)} <= options, f"regrain {code}"


def test_a_wrong_command_is_seen() -> None:
    assert "--format" in (problem_of("export", ["RUN", "--out", "model.onnx"]) or "")
    assert "--wieght" in (problem_of("fit", ["maskcon", "DATA", "--wieght", "1"]) or "")
    assert problem_of("fit", ["maskcon", "DATA", "--set", "weight=1"]) is None


def test_the_page_about_a_new_protocol_runs_and_its_file_is_short(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert len((ROOT / "examples" / "add_a_protocol.py").read_text(encoding="utf-8").splitlines()) < 40
    monkeypatch.syspath_prepend(ROOT / "examples")
    monkeypatch.setitem(PROTOCOLS, "nearest-mean", PROTOCOLS["knn"])  # forgotten again after the test
    monkeypatch.chdir(tmp_path)
    (block,) = blocks_of((DOCS / "add-a-protocol.md").read_text(encoding="utf-8"))
    assert list(printed([block])) == [block.shown]
    run, names = Run.open("runs/digits"), {"options": {"power": 1.0}, "baselines": False}
    with pytest.raises(UserError, match="power is an option of the protocol nearest-mean"):
        regrain.evaluate(run, **names)
    found = regrain.evaluate(run, protocols=["nearest-mean"], levels=["digit"], baselines=False).flat()
    parts = run.splits()
    train, test = (parts[name] for name in ("train", "test"))
    vectors, codes = run.embed(train), train.labels.level("digit")
    means = torch.stack([vectors[codes == code].mean(dim=0) for code in codes.unique()])
    hits = torch.cdist(run.embed(test), means).argmin(dim=1) == test.labels.level("digit")
    assert found["test/digit/nearest-mean"] == pytest.approx(float(hits.float().mean()))


def test_the_example_of_the_data_page_prints_what_it_shows() -> None:
    (block,) = blocks_of((DOCS / "data.md").read_text(encoding="utf-8"))
    (output,) = printed([block])
    assert block.shown is not None
    assert masked(output) == masked(block.shown)


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """``examples/add_a_method.py``, whose method is forgotten again after the test."""
    monkeypatch.setitem(METHODS, "spread", METHODS["sup-ce"])
    spec = importlib.util.spec_from_file_location("add_a_method", ROOT / "examples" / "add_a_method.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_worked_example_is_short() -> None:
    assert len((ROOT / "examples" / "add_a_method.py").read_text(encoding="utf-8").splitlines()) < 60


def test_its_loss_is_a_loop_over_pairs(example: ModuleType) -> None:
    generator = torch.Generator().manual_seed(0)
    rows, labels = torch.randn(7, 3, generator=generator), torch.tensor([0, 1, 0, -1, 1, -1, 0])
    encoder = build_encoder("identity", modality="vector", sample_shape=(3,))
    method = example.Spread(encoder, [2], weight=2.0)
    unit = rows / rows.norm(dim=1, keepdim=True)
    kernels = [
        torch.exp(-2 * (unit[i] - unit[j]).square().sum())
        for i in range(7)
        for j in range(7)
        if i == j or labels[i] == labels[j] >= 0
    ]
    expected = (sum(kernels) / len(kernels)).log()
    losses = method.loss(rows, torch.zeros(7, 2), labels[:, None])
    torch.testing.assert_close(losses["spread"], expected)
    torch.testing.assert_close(losses["loss"], 2 * expected + torch.tensor(2.0).log())


def test_it_is_finite_where_no_label_is_known(example: ModuleType) -> None:
    encoder = build_encoder("mlp", modality="vector", sample_shape=(5,), hidden=(4,), width=3, seed=0)
    method = example.Spread(encoder, [2])
    loss = method.losses(Batch((torch.randn(4, 5),), torch.full((4, 1), -1), torch.arange(4)))["loss"]
    loss.backward()
    assert abs(loss.item()) < 1e-6
    assert all(p.grad is None or p.grad.abs().max() < 1e-6 for p in method.parameters())


def test_it_is_a_method_like_the_others(example: ModuleType, regrain: Command, tmp_path: Path) -> None:
    code, out, _ = regrain("methods", "spread")
    assert code == 0
    assert "weight = 0.1" in out
    asked = ["--encoder", "conv4", "--epochs", "2", "--limit-per-class", "20", "--quiet", "--device", "cpu"]
    code, _, err = regrain("fit", "spread", "digits", "--set", "weight=0.2", "--out", "run", *asked)
    assert code == 0, err
    assert "group as coarse" in err
    code, out, err = regrain("evaluate", "run", "-p", "recall", "-p", "superclass", "--no-baselines", "--json")
    assert code == 0, err
    figures = json.loads(out)
    assert 0 < figures["test/digit/recall@1"] <= 1
    assert 0 < figures["test/group/accuracy"] <= 1
