"""The command line as a user meets it: what it prints, what it writes, and one clear message for every mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from support import Command

from regrain.methods import METHODS

FAST = ["--epochs", "1", "--quiet", "--device", "cpu"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder super/sub/image with two superclasses of two subclasses."""
    folder = tmp_path / "photos"
    generator = np.random.default_rng(0)
    for index, place in enumerate(("cats/siamese", "cats/tabby", "dogs/beagle", "dogs/poodle")):
        (folder / place).mkdir(parents=True)
        for number in range(12):
            pixels = generator.integers(0, 60, (16, 16, 3)) + 50 * index
            Image.fromarray(pixels.astype(np.uint8)).save(folder / place / f"{number}.png")
    return folder


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A CSV of numeric columns with two levels."""
    generator = np.random.default_rng(0)
    fine = np.repeat(np.arange(4), 15)
    frame = pd.DataFrame(generator.normal(size=(60, 5)) + 3 * np.eye(5)[fine], columns=[f"f{i}" for i in range(5)])
    frame.insert(0, "kind", np.array(["a", "a", "b", "b"])[fine])
    frame.insert(1, "subkind", np.array(["a1", "a2", "b1", "b2"])[fine])
    frame.to_csv(tmp_path / "table.csv", index=False)
    return tmp_path / "table.csv"


def test_fit_evaluate_embed_on_a_folder(regrain: Command, photos: Path, tmp_path: Path) -> None:
    code, _, err = regrain("fit", "maskcon", photos, "--encoder", "conv4", "--out", "run", *FAST)
    assert code == 0, err
    assert "level1 as coarse" in err
    assert "queue of 19 entries" in err  # half of the 38 samples that train
    run = tmp_path / "run"
    for name in ("recipe.yaml", "versions.json", "labels.json", "metrics.csv", "card.md", "checkpoints/last.ckpt"):
        assert (run / name).exists(), name
    assert (run / "model" / "model.safetensors").exists()
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    assert recipe["method"]["temperature"] == 0.1
    assert recipe["training"]["epochs"] == 1

    code, out, err = regrain("evaluate", "run", "--json", "--k", "1", "--k", "3", "--neighbours", "5")
    assert code == 0, err
    figures = json.loads(out)
    for key in ("test/level2/recall@1", "test/level2/recall@1.low", "test/level2/recall@1.raw", "test/level1/knn@5"):
        assert 0 <= figures[key] <= 1, key
    assert "test/level2/recall@1.random" in figures
    assert json.loads((run / "evaluation.json").read_text())["schema"] == 1

    code, out, err = regrain("evaluate", "run", "--protocol", "recall", "--level", "level2", "--k", "1")
    assert code == 0, err
    assert "recall@1" in out
    assert "random" in out

    code, out, err = regrain("embed", "run", "--data", photos, "--out", "vectors.parquet")
    assert code == 0, err
    written = pq.read_table(tmp_path / "vectors.parquet")
    assert written.num_rows == 48
    assert written.column_names == ["id", "split", "level1", "level2", "embedding"]
    code, _, err = regrain("embed", "run", "--data", photos, "--out", "vectors.parquet")
    assert (code, "--overwrite" in err) == (2, True)
    code, _, err = regrain("embed", "run", "--data", photos, "--normalise", "--out", "units.parquet")
    assert code == 0, err
    units, vectors = (
        np.stack(table["embedding"].to_pylist()) for table in (pq.read_table(tmp_path / "units.parquet"), written)
    )
    np.testing.assert_allclose(units, vectors / np.linalg.norm(vectors, axis=1, keepdims=True), atol=1e-6)
    for precision in ("float32", "bf16"):
        asked = ("--precision", precision, "--out", f"{precision}.parquet")
        code, _, err = regrain("embed", "run", "--data", photos, *asked)
        assert code == 0, err
    whole, half = (
        np.stack(pq.read_table(tmp_path / f"{name}.parquet")["embedding"].to_pylist()) for name in ("float32", "bf16")
    )
    np.testing.assert_allclose(whole, half, rtol=0, atol=0.05 * np.abs(whole).max())
    assert not np.array_equal(whole, half)


def test_a_table_trains_and_the_finished_run_is_safe(regrain: Command, table: Path, tmp_path: Path) -> None:
    arguments = (
        "fit",
        "supcon",
        table,
        "--level",
        "kind",
        "--level",
        "subkind",
        "--columns",
        "f*",
        "--out",
        "run",
        *FAST,
    )
    assert regrain(*arguments)[0] == 0
    before = (tmp_path / "run" / "model" / "model.safetensors").read_bytes()
    code, _, err = regrain(*arguments)
    assert code == 2
    assert "already holds a run" in err
    assert (tmp_path / "run" / "model" / "model.safetensors").read_bytes() == before
    code, _, err = regrain("resume", "run")
    assert (code, "is finished" in err) == (2, True)
    assert regrain(*arguments, "--overwrite")[0] == 0
    assert (tmp_path / "run" / "model" / "model.safetensors").read_bytes() == before  # the same seed


def test_hidden_labels_are_recorded(regrain: Command, table: Path) -> None:
    fit = ("fit", "sup-ce", table, "--level", "kind", "--out", "run", *FAST)
    code, _, err = regrain(*fit, "--hide-labels", "0.75")
    assert code == 0, err
    assert yaml.safe_load(Path("run/recipe.yaml").read_text())["data"]["hide_labels"] == 0.75


def test_lists(regrain: Command) -> None:
    code, out, _ = regrain("methods")
    assert code == 0
    assert "maskcon" in out
    assert "which method for my labels" in out
    code, out, _ = regrain("methods", "maskcon")
    assert "soft_temperature = 0.05" in out
    assert "eq. 8-15" in out
    code, out, _ = regrain("datasets")
    assert "cifartoy-bad-code" in out
    assert set(json.loads(regrain("datasets", "--json")[1])) >= {"digits", "clinc150", "grocery", "omniglot"}
    methods = {name: {"summary": m.summary, "reads": list(m.needs.levels)} for name, m in METHODS.items()}
    assert json.loads(regrain("methods", "--json")[1]) == methods


def test_check(regrain: Command, photos: Path) -> None:
    assert regrain("check", photos)[0] == 0
    (photos / "cats" / "tabby" / "broken.png").write_bytes(b"no image")
    code, out, _ = regrain("check", photos)
    assert code == 2
    assert "broken.png" in out
    report = json.loads(regrain("check", photos, "--json")[1])
    assert "broken.png" in json.dumps(report)


def test_a_split_column_means_the_same_to_every_command(regrain: Command, table: Path) -> None:
    frame = pd.read_csv(table)
    frame["part"] = np.where(np.arange(60) % 3 == 0, "test", "train")
    frame.to_csv(table, index=False)
    reading = (str(table), "--level", "kind", "--level", "subkind", "--columns", "f*", "--split-column", "part")
    assert "train 40, test 20" in regrain("check", *reading)[1].replace("test 20, train 40", "train 40, test 20")
    assert regrain("fit", "sup-ce", *reading, "--out", "run", *FAST)[0] == 0
    for judged in ((), ("--data", *reading)):
        code, out, err = regrain("evaluate", "run", *judged, "--protocol", "recall", "--k", "1")
        assert code == 0, err
        assert "test: 20 samples" in out
    code, out, err = regrain("embed", "run", "--data", *reading, "--split", "test", "--out", "v.parquet")
    assert "20 embeddings" in out, err


def test_labels_hidden_level_by_level_and_predictions_at_every_level(
    regrain: Command, table: Path, tmp_path: Path
) -> None:
    levels = ("--level", "kind", "--level", "subkind")
    fit = ("fit", "mixed", table, *levels, "--columns", "f*", "--out", "run", *FAST)
    code, _, err = regrain(*fit, "--hide-labels", "kind=0.35", "--hide-labels", "subkind=0.75")
    assert code == 0, err
    recipe = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    assert recipe["data"]["hide_labels"] == {"kind": 0.35, "subkind": 0.75}
    assert recipe["data"]["roles"] == {"level1": "kind", "level2": "subkind"}
    code, out, err = regrain("predict", "run", table, "--columns", "f*", "--out", "p.csv")
    assert code == 0, err
    assert "60 predictions of kind and subkind" in out
    predicted = pd.read_csv(tmp_path / "p.csv")
    assert {"kind", "kind_probability", "subkind", "subkind_probability"} <= set(predicted.columns)
    assert (predicted["kind"] == [name[0] for name in predicted["subkind"]]).mean() > 0.9
    wrongs = (("half", "LEVEL=0.8; got half"), ("kindd=0.5", "'kind'"), ("kind=1", "[0, 1)"))
    for wrong, expected in (*wrongs, ("subkind=0.5:heavy", "0.8:hard or 0.8:easy; got '0.5:heavy'")):
        code, _, err = regrain(*fit, "--overwrite", "--hide-labels", wrong)
        assert (code, expected in err) == (2, True), err
    assert regrain(*fit, "--overwrite", "--hide-labels", "0.5")[0] == 0
    assert yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())["data"]["hide_labels"] == 0.5
    assert regrain(*fit, "--overwrite", "--hide-labels", "subkind=0.5:hard")[0] == 0
    recipe = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    assert recipe["data"]["hide_labels"] == {"subkind": "0.5:hard"}
    code, _, err = regrain(*fit, "--overwrite", "--label-noise", "0.5:hard")
    assert (code, "--label-noise takes a share such as 0.8" in err) == (2, True), err


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_every_mistake_has_its_message_and_exit_code_2(
    regrain: Command, photos: Path, table: Path, tmp_path: Path
) -> None:
    fit = ("fit", "maskcon", table, "--level", "kind", "--level", "subkind", "--out", "new", *FAST)
    one = write(tmp_path / "one.csv", "kind,f0,f1\n" + "a,1,2\n" * 9)
    unknown = write(tmp_path / "unknown.csv", "kind,f0,f1\n" + ",1,2\n" * 9)
    nan = write(tmp_path / "nan.csv", "kind,f0,f1\na,1,2\nb,,2\na,4,2\nb,1,5\n")
    two_parents = write(tmp_path / "parents.csv", "kind,sub,f0,f1\na,x,1,2\nb,x,3,2\na,y,4,2\nb,z,1,5\n")
    (tmp_path / "empty").mkdir()
    (photos / "cats" / "tabby" / "broken.png").write_bytes(b"no image")
    cases: list[tuple[tuple[object, ...], str]] = [
        (("fit", "maskcon", "nowhere.csv", *FAST), "nowhere.csv"),
        (("fit", "maskcon", "digitz", *FAST), "did you mean 'digits'"),
        (("fit", "maskkon", table, *FAST), "did you mean 'maskcon'"),
        (("fit", "maskcon", table, "--level", "kindd", *FAST), "'kind'"),
        (("fit", "maskcon", "digits", "--level", "digitt", *FAST), "did you mean 'digit'"),
        ((*fit, "--set", "wieght=1"), "did you mean 'weight'"),
        ((*fit, "--set", "weight=high"), "weight must be a number between 0 and 1; got 'high'"),
        ((*fit, "--set", "weight=2"), "weight"),
        ((*fit, "--set", "queue_size=1000"), "longer than the training data"),
        ((*fit, "--encoder", "mpl"), "did you mean 'mlp'"),
        ((*fit, "--encoder", "resnet18"), "encoder for image data"),
        ((*fit, "--columns", "g7"), "g7"),
        ((*fit, "--device", "cuda"), "CUDA"),
        ((*fit, "--holdout", "1.5"), "between 0 and 1"),
        ((*fit, "--hide-labels", "1"), "lies in [0, 1), 1 left out"),
        ((*fit, "--set", "views.presets=[weak]"), "takes 2 views"),
        ((*fit, "--set", "views.presets=[weak, wek]"), "weak"),
        (("fit", "maskcon", one, "--level", "kind", *FAST), "has one class"),
        (("fit", "maskcon", unknown, "--level", "kind", "--columns", "f*", *FAST), "unknown"),
        (("fit", "maskcon", nan, "--level", "kind", *FAST), "f0"),
        (
            ("fit", "maskcon", two_parents, "--level", "kind", "--level", "sub", *FAST),
            "'x' lies under kind 'a' and 'b'",
        ),
        (("fit", "maskcon", "empty", *FAST), "empty"),
        (("fit", "maskcon", photos, "--encoder", "conv4", *FAST), "broken.png"),
        (("evaluate", "nowhere"), "does not exist"),
        (("resume", "empty"), "holds no run"),
    ]
    for arguments, expected in cases:
        code, _, err = regrain(*map(str, arguments))
        assert code == 2, (arguments, code, err)
        assert expected in err, (arguments, err)
        assert "Traceback" not in err, (arguments, err)
    assert not (tmp_path / "new").exists()  # nothing was begun


def test_mistakes_in_judging(regrain: Command, table: Path, tmp_path: Path) -> None:
    assert regrain("fit", "sup-ce", table, "--level", "kind", "--level", "subkind", "--out", "run", *FAST)[0] == 0
    cases = [
        (("--k", "1000"), "1000"),
        (("--protocol", "recal"), "did you mean 'recall'"),
        (("--level", "kinds"), "did you mean 'kind'"),
        (("--split", "tset"), "'tset'"),
        (("--text", "question"), "--data"),
        (("--root", "elsewhere"), "no option 'root' without other data"),
        (("--data", str(table), "--window", "0"), "window"),
        (("--data", "digits"), "vector"),
        (("--linear-epochs", "3"), "add -p linear"),
        (("-p", "transfer", "--linear-epochs", "3"), "transfer is for data"),
    ]
    for arguments, expected in cases:
        code, _, err = regrain("evaluate", "run", *arguments)
        assert code == 2, (arguments, err)
        assert expected in err, (arguments, err)


def test_skip_unreadable_counts(regrain: Command, photos: Path) -> None:
    (photos / "cats" / "tabby" / "broken.png").write_bytes(b"no image")
    code, _, err = regrain("fit", "sup-ce", photos, "--encoder", "conv4", "--skip-unreadable", "--out", "run", *FAST)
    assert code == 0, err
    assert "1 " in err
    assert "left out" in err


def test_help_is_quick_to_import_and_complete() -> None:
    """`--help` must not load torch; `import regrain.objectives` nothing heavy besides."""
    check = (
        "import sys, regrain.cli.main; heavy = {'torch', 'pandas', 'sklearn', 'lightning', 'timm'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", check], check=True)
    check = (
        "import sys, regrain.objectives; heavy = {'pandas', 'sklearn', 'lightning', 'timm', 'scipy', 'pydantic'} "
        "& set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", check], check=True)
    check = (
        "import sys, regrain; [getattr(regrain, name) for name in regrain.__all__]; "
        "heavy = {'pandas', 'sklearn', 'lightning', 'timm', 'scipy', 'torchvision'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", check], check=True)


@pytest.mark.parametrize(
    "command",
    [
        "demo",
        "fit",
        "resume",
        "evaluate",
        "embed",
        "adapt",
        "predict",
        "regroup",
        "convert",
        "plan",
        "check",
        "datasets",
        "methods",
        "taxonomies",
        "recipes",
        "reproduce",
    ],
)
def test_every_command_has_help_with_an_example(regrain: Command, command: str) -> None:
    code, out, _ = regrain(command, "--help")
    assert code == 0
    if command != "demo":
        assert f"regrain {command} " in out


def test_tune_tells_its_trials_and_leaves_a_recipe(regrain: Command, table: Path, tmp_path: Path) -> None:
    wanted = ["tune", "maskcon", str(table), "--epochs", "1", "--range", "weight=0.5,1", "--trials", "2"]
    code, out, err = regrain(*wanted, "--out", "search")
    assert code == 0, err
    assert "best first by agreement" in out
    assert err.count("trial ") == 2
    best = Path("search") / "best.yaml"
    assert str(best) in out
    code, _, err = regrain("fit", "maskcon", str(table), "--recipe", str(best), "--out", "run", *FAST)
    assert code == 0, err
    code, out, err = regrain(*wanted, "--out", "search", "--json")
    assert code == 0, err
    assert "trial " not in err  # nothing was trained again
    found = json.loads(out)
    assert {t["weight"] for t in found["trials"]} == {0.5, 1}
    code, _, err = regrain(*wanted, "--out", "elsewhere", "--criterion", "recall")
    assert code == 2
    assert "--criterion has no choice 'recall'" in err
    assert not Path("elsewhere").exists()
