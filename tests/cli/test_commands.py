"""Commands are made from the verbs: their options, their help, and the names that are checked before torch."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support import Command
from typer.main import get_command

from regrain.checks import hyperparameters
from regrain.cli.build import (
    fields_of,
    first_sentence,
    head_of,
    keywords_of,
    options_of,
    parameter_texts,
    plain,
    protocols,
)
from regrain.cli.commands import COMMANDS
from regrain.cli.main import app
from regrain.errors import UserError
from regrain.methods import ALIASES, METHODS, method_name
from regrain.training.options import TrainingOptions

TYPOS = {
    "fit maskkon digits": "no method 'maskkon': did you mean 'maskcon'?",
    "fit maskcon digitz": "no file, folder or data set 'digitz': did you mean 'digits'?",
    "fit maskcon my/own/photos": "no file, folder or data set 'my/own/photos'; `regrain datasets` lists",
    "fit maskcon digits --encoder resnet81": "no encoder 'resnet81': did you mean 'resnet18'?",
    "fit maskcon digits --device cudo": "--device has no choice 'cudo': did you mean 'cuda'?",
    "check digits --relation tre": "--relation has no choice 'tre': did you mean 'tree'?",
    "tune maskcon digits --criterion agrement": "--criterion has no choice 'agrement': did you mean 'agreement'?",
    "evaluate {run} -p clusterin": "no protocol 'clusterin': did you mean 'clustering'?",
    "evaluate runs/none": "runs/none does not exist; runs are made by `regrain fit`",
    "evaluate a-file": "a-file is a file, and a run is a folder; runs are made by `regrain fit`",
    "export {run} -f onx": "--format has no choice 'onx': did you mean 'onnx'?",
    "regroup digits cifar100_5 --out x.csv": "no taxonomy 'cifar100_5', and no such file: did you mean 'cifar100_",
    "adapt {run} --support labeled.csv --out new": "no file, folder or data set 'labeled.csv'",
    "reproduce maskcon/tabel2": "no recipe, table or paper 'maskcon/tabel2': did you mean 'maskcon/table2'?",
    "taxonomies imagnet": "no taxonomy 'imagnet', and no such file: did you mean 'imagenet_12'?",
    "fit maskcon digits --set wieght=1": "--set: maskcon has no setting 'wieght': did you mean 'weight'?",
    "fit maskcon digits --set trainin.epochs=3": "--set trainin.epochs: no section 'trainin': did you mean 'training'?",
    "tune maskcon digits --range wieght=0.1,1": "--range: maskcon has no setting 'wieght': did you mean 'weight'?",
    "evaluate {run} -o clustr_starts=3": "no protocol has an option 'clustr_starts': did you mean 'cluster_starts'?",
    "datasets digitz": "no data set 'digitz' in the catalogue: did you mean 'digits'?",
}


@pytest.mark.parametrize("arguments", TYPOS)
def test_a_typo_is_found_before_torch_is_imported(arguments: str, tmp_path: Path) -> None:
    program = (
        f"import sys\nsys.argv = ['regrain', *{arguments.format(run=tmp_path).split()!r}]\n"
        "from regrain.cli import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    print(stop.code, 'torch' in sys.modules)\n"
    )
    (tmp_path / "a-file").touch()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert TYPOS[arguments] in done.stderr
    assert done.stdout == "2 False\n"


@pytest.mark.parametrize("name", METHODS)
def test_settings_read_from_source_are_those_of_the_class(name: str) -> None:
    cls = METHODS[name]
    assert set(keywords_of(f"{cls.__module__}:{cls.__name__}")) == set(hyperparameters(cls))


def test_settings_of_a_training_read_from_source_are_those_of_the_class() -> None:
    assert set(fields_of("regrain.training.options:TrainingOptions")) == set(hyperparameters(TrainingOptions))


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_described_without_markup(name: str) -> None:
    assert not re.search(r"``|:[a-z]+:`|\.\. math", plain(inspect.cleandoc(METHODS[name].__doc__ or "")))


def test_python_says_the_same() -> None:
    with pytest.raises(UserError, match=r"no method 'maskkon': did you mean 'maskcon'\?"):
        method_name("maskkon")
    assert {method_name(name) for name in (*METHODS, *ALIASES)} == set(METHODS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_a_help_text_of_its_own(name: str) -> None:
    texts = {option.name: first_sentence(option.help) for option, _ in options_of(COMMANDS[name]).values()}
    texts.pop("progress", None)
    assert [n for n, text in texts.items() if len(text) < 6 or text.startswith("See ")] == []
    twice = [n for n, text in texts.items() if list(texts.values()).count(text) > 1]
    assert twice == []


@pytest.mark.parametrize("name", [n for n, c in COMMANDS.items() if c.examples])
def test_the_examples_of_a_command_can_be_typed(name: str) -> None:
    flags = {flag for p in get_command(app).commands[name].params for flag in (*p.opts, *p.secondary_opts)}  # type: ignore[attr-defined]
    for example in COMMANDS[name].examples:
        words = example.split("`")[1].split()
        assert words[0] == "regrain"
        if words[1] == name:
            assert {word for word in words if word.startswith("-")} <= flags


def test_a_text_is_the_one_of_the_docstring() -> None:
    _, documentation = head_of("regrain.verbs.fit:fit")
    assert parameter_texts(documentation)["frozen"].startswith("Keep the encoder; train an adapter")


def test_protocols_are_those_that_evaluate_knows() -> None:
    from regrain.evaluation import PROTOCOLS

    assert set(protocols()) == set(PROTOCOLS)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--series-shape", "128", "--series-shape takes two numbers, such as 128x6; got '128'"),
        ("--hide-labels", "much", "--hide-labels takes a share such as 0.8, or LEVEL=0.8; got much"),
    ],
)
def test_what_cannot_be_read_is_said(regrain: Command, option: str, value: str, said: str) -> None:
    code, _, err = regrain("fit", "maskcon", "digits", option, value)
    assert (code, said in err) == (2, True), err
