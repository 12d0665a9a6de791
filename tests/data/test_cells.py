"""Single cells: counts, genes, columns of obs, and what is wrong with them; files where `anndata` is installed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_matrix
from support import Command, quick, raises

import regrain
from regrain.data.anndata import normalised_counts
from regrain.data.readers import read

CELLS, GENES = 60, 8


def observed(seed: int = 0) -> tuple[np.ndarray, pd.DataFrame]:
    """Counts of cells of three types in two lineages, and a table about them."""
    rng = np.random.default_rng(seed)
    kind = np.arange(CELLS) % 3
    rates = np.where(np.arange(GENES) % 3 == kind[:, None], 9.0, 0.7)
    obs = pd.DataFrame(
        {
            "lineage": pd.Categorical(np.where(kind < 2, "lymphoid", "myeloid")),
            "cell_type": pd.Categorical(np.array(["B", "T", "monocyte"])[kind]),
            "n_counts": rng.integers(100, 900, CELLS),
        },
        index=[f"cell{i}" for i in range(CELLS)],
    )
    return rng.poisson(rates).astype(np.float32), obs


def cells(x: Any = None, obs: pd.DataFrame | None = None, genes: list[str] | None = None, **more: Any) -> Any:
    """What an AnnData object has of what is read."""
    counts, table = observed()
    x, obs = counts if x is None else x, table if obs is None else obs
    genes = genes or [f"g{i}" for i in range(x.shape[1])]
    names = pd.Index(genes)
    return SimpleNamespace(X=x, obs=obs, var=pd.DataFrame(index=names), obs_names=obs.index, var_names=names,
                           obsm={}, **more)  # fmt: skip


def values(data: Any) -> np.ndarray:
    return data.samples.take(torch.arange(len(data))).numpy()


def told(data: Any) -> str:
    return "; ".join(map(str, data.notes["messages"]))


def test_counts_are_normalised_as_scanpy_does() -> None:
    x, obs = observed()
    data = read(cells())
    expected = np.log1p(x / x.sum(axis=1, keepdims=True) * 1e4)
    np.testing.assert_allclose(values(data), expected, rtol=1e-6)
    assert data.modality == "vector"
    assert data.ids.tolist() == list(obs.index)
    assert data.notes["columns"] == [f"g{i}" for i in range(GENES)]
    assert data.labels.counts == {"lineage": 2, "cell_type": 3}  # categories of obs; its numbers are no features
    assert "X holds counts" in told(data)
    for other in (cells(csr_matrix(x)), cells(x.astype(np.int32))):
        np.testing.assert_array_equal(values(read(other)), values(data))


def test_a_cell_is_the_same_sample_beside_any_others() -> None:
    x, obs = observed()
    np.testing.assert_array_equal(values(read(cells(x[:3], obs[:3]), levels=[])), values(read(cells()))[:3])


def test_numbers_that_are_no_counts_stay() -> None:
    x = normalised_counts(observed()[0])
    data = read(cells(x))
    np.testing.assert_array_equal(values(data), x)
    assert "read as it is" in told(data)
    np.testing.assert_array_equal(values(read(cells(), gene_counts="keep")), observed()[0])
    with raises("out_of_range", match="--gene-counts keep"):
        read(cells(x), gene_counts="normalise")


def test_a_cell_without_counts_is_zeros_and_is_told() -> None:
    x, _ = observed()
    x[3] = 0
    data = read(cells(x))
    assert not values(data)[3].any()
    assert "1 cells have none" in told(data)


def test_genes_by_name_pattern_and_matrix_of_obsm() -> None:
    data = read(cells(genes=["CD3E", "CD4", "MT-1", "MT-2", "A", "B", "C", "D"]), columns=["MT-*", "CD4"])
    assert data.notes["columns"] == ["MT-1", "MT-2", "CD4"]
    source = cells()
    source.obsm["X_pca"] = -np.ones((CELLS, 2))
    assert read(source, columns=["X_pca"]).samples.shape == (2,)
    with raises("unknown_column", match="did you mean 'g3'"):
        read(cells(), columns=["g33"])


def test_repeated_genes_get_numbers() -> None:
    assert read(cells(genes=["a", "a", "a", "b", "a-1", "c", "d", "e"])).notes["columns"] == [
        "a", "a-2", "a-3", "b", "a-1", "c", "d", "e",
    ]  # fmt: skip


def test_roles_are_columns_of_obs() -> None:
    x, obs = observed()
    obs["where"] = np.where(np.arange(CELLS) < 40, "train", "test")
    obs["barcode"] = [f"b{i}" for i in range(CELLS)]
    obs["donor"] = [f"d{i % 4}" for i in range(CELLS)]
    data = read(cells(x, obs), levels=["cell_type"], split_column="where", id_column="barcode", group_column="donor")
    assert data.split_names == ("train", "test")
    assert data.ids[0] == "b0"
    assert set(data.groups) == {"d0", "d1", "d2", "d3"}
    obs.loc["cell7", "lineage"] = None
    assert (read(cells(x, obs), levels=["lineage"]).labels.codes == -1).sum() == 1


def test_faults_are_named_by_cell_and_gene() -> None:
    x, obs = observed()
    x[5, 2] = np.nan
    with pytest.raises(regrain.UserError, match=r"cell 'cell5' has nan for 'g2'"):
        read(cells(x, obs))
    with raises("unknown_column", match="no column 'lineag'"):
        read(cells(), levels=["lineag"])
    with raises("unknown_option"):
        read(cells(), image="path")
    with pytest.raises(regrain.UserError, match="no matrix X"):
        read(SimpleNamespace(**{**vars(cells()), "X": None}))


def test_genes_are_found_by_name_when_predicting(tmp_path: Path) -> None:
    run = quick("sup-ce", cells(), tmp_path / "run", levels=["lineage"])
    x, obs = observed()
    order = np.arange(GENES)[::-1]
    mixed = cells(x[:, order], obs.drop(columns=obs.columns), genes=[f"g{i}" for i in order])
    one, other = (run.predict(source) for source in (cells(obs=obs), mixed))
    pd.testing.assert_frame_equal(one, other)
    with pytest.raises(regrain.UserError, match=r"column 'g7' is missing"):
        run.predict(cells(x[:, :7], obs))


def test_other_cells_are_read_by_the_columns_of_the_run(tmp_path: Path) -> None:
    x, obs = observed()
    obs["barcode"] = [f"b{i}" for i in range(CELLS)]
    run = quick("sup-ce", cells(x, obs), tmp_path / "run", levels=["lineage"], id_column="barcode")
    other = obs.assign(state=list("ab") * (CELLS // 2)).drop(columns=["barcode", "cell_type"])  # nests with nothing
    found = regrain.evaluate(run, cells(x, other), protocols=["superclass"]).flat()
    assert "test/lineage/accuracy" in found or "all/lineage/accuracy" in found


needs_anndata = pytest.mark.skipif(
    importlib.util.find_spec("anndata") is None, reason="reading .h5ad files needs regrain[cells]"
)


def written(folder: Path, x: Any, obs: pd.DataFrame) -> Path:
    import anndata

    if hasattr(anndata.settings, "allow_write_nullable_strings"):  # pandas 3 has no other
        anndata.settings.allow_write_nullable_strings = True
    path = folder / "cells.h5ad"
    anndata.AnnData(x, obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(x.shape[1])])).write_h5ad(path)
    return path


@needs_anndata
def test_a_file_is_read_as_the_object_is(tmp_path: Path) -> None:
    x, obs = observed()
    for matrix in (x, csr_matrix(x)):
        path = written(tmp_path, matrix, obs)
        data = read(path)
        np.testing.assert_array_equal(values(data), values(read(cells())))
        assert data.labels.counts == {"lineage": 2, "cell_type": 3}
        assert (data.name, data.ids[7]) == ("cells", "cell7")


@needs_anndata
def test_commands_on_a_file(tmp_path: Path, regrain: Command) -> None:
    path = written(tmp_path, *observed())
    status, out, err = regrain("check", path)
    assert status == 0, err
    assert "60" in out
    assert "cell_type" in out
    run = tmp_path / "run"
    fit = ("fit", "falcon", path, "-l", "lineage", "-l", "cell_type", "--epochs", "2", "--out", run, "--device", "cpu")
    status, _, err = regrain(*fit, "--set", "subclasses=3")
    assert status == 0, err
    status, out, err = regrain("predict", run, path, "--out", tmp_path / "predicted.csv")
    assert status == 0, err
    assert set(pd.read_csv(tmp_path / "predicted.csv")["lineage"]) <= {"lymphoid", "myeloid"}
    status, _, err = regrain("discover", run)
    assert status == 0, err


def test_a_file_without_the_package_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "some.h5ad").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "anndata", None)
    with raises("missing_package", match=r"pip install 'regrain\[cells\]'"):
        read(tmp_path / "some.h5ad")


@needs_anndata
def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.h5ad"
    path.write_bytes(b"not hdf5")
    with raises("damaged_file", match="broken.h5ad cannot be read as AnnData"):
        read(path)


@needs_anndata
def test_a_small_set_of_blood_cells() -> None:
    """PBMC of scanpy, scaled already, of which ``raw`` is not."""
    found = importlib.util.find_spec("scanpy")
    if found is None or found.origin is None:
        pytest.skip("the set comes with scanpy")
    path = Path(found.origin).parent / "datasets" / "10x_pbmc68k_reduced.h5ad"
    data = read(path, levels=["bulk_labels"])
    assert (len(data), data.samples.shape, data.labels.counts) == (700, (765,), {"bulk_labels": 10})
    assert "read as it is" in told(data)
