"""``discover``: the hidden subclasses of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Unpack

from regrain.checks import Count, CountFromZero, Seed
from regrain.data.options import ReaderOptions
from regrain.errors import UserError, warn
from regrain.runs.class_count import class_count_of
from regrain.runs.discovery import Discovery, assign_subclasses, fit_subclasses, given_of
from regrain.runs.grids import require_drawable, write_grids
from regrain.runs.run import Run
from regrain.runs.subclass_model import SubclassModel, read_discovery
from regrain.runs.tables import require_writable, write_columns
from regrain.runs.verb import RunOrPath, verb
from regrain.spelling import command
from regrain.verbs.refinement import read_refinement, refine_run


@verb
def discover(
    run: RunOrPath,
    data: Any = None,
    *,
    out: str | Path | None = None,
    superclass: str | None = None,
    subclasses: Count | None = None,
    each: str | int | None = None,
    balanced: bool = False,
    known: str | None = None,
    refine: Count | None = None,
    names: str | Path | None = None,
    ignore_coarse_labels: bool = False,
    exemplars: CountFromZero = 10,
    grids: str | Path | None = None,
    estimate_classes: bool = False,
    overwrite: bool = False,
    seed: Seed = 0,
    write: bool = True,
    **reader_options: Unpack[ReaderOptions],
) -> Discovery:
    """Find the hidden subclasses of a run: which sample has which, their sizes, exemplars, outliers.

    Labels finer than the superclass are used only for the purity that is shown, and to keep the classes of a level that
    is ``known``.

    The first call fixes them, in the run's ``discovery/`` folder: by the method's own subclasses, or by k-means
    within each superclass where it has none. Later calls use the same, so that names stay true; options of k-means, or
    another superclass, find them again.

    Parameters
    ----------
    run : Run or path
        A run folder, or a Run.
    data : optional
        Other data than the run's own: whatever :func:`load` reads, such as a path or a data set's name. Their samples
        get the subclasses that were found in the run's own.
    out : path, optional
        The table of samples, .csv or .parquet; default ``RUN/discovery/samples.parquet`` for the run's own data.
    superclass : str, optional
        The level of the superclasses; default what the method read as coarse. Else the data's first level; none for a
        method that found classes without reading labels.
    subclasses : int, optional
        Clusters in all, for methods without subclasses; default by silhouette.
    each : int or str, optional
        Clusters of every superclass instead: a number, or bounds such as 3-20 within which silhouette chooses; for
        some superclasses by name, as in "work=15,travel=3-20".
    balanced : bool
        Clusters of equal size, by Sinkhorn.
    known : str, optional
        A level whose labelled classes are kept: each is a subclass with its labelled training samples, and other
        subclasses are found. Default for methods that read several levels: the finest of them.
    refine : int, optional
        Rounds of refinement: each trains a classifier of the subclasses, as a run in ``RUN/refined``. The best is kept,
        by a criterion that sees no finer label.
    names : path, optional
        A JSON of names such as {"3": "wine glass"}: makes the run a classifier. Several subclasses may share a name.
    ignore_coarse_labels : bool
        Ignore superclass labels outside the training split.
    exemplars : int
        Samples named for each subclass: those nearest to the mean, and farthest from it.
    grids : path, optional
        A folder for pictures of the purest, most mixed and some random subclasses.
    estimate_classes : bool
        Estimate the number of classes, without labels.
    overwrite : bool
        Replace the file at ``out``, pictures in ``grids``, and subclasses that have names.
    seed : int
        Fixes k-means, if subclasses are found.
    write : bool
        Whether the run keeps the subclasses found here, and the table of its own samples.
    **reader_options
        See :func:`load`.

    Raises
    ------
    UserError
        If the data do not fit the run, an option does not fit the method, a named subclass does not exist, or a file
        would be lost.
    """
    target = None if out is None else Path(out)
    if target is not None:
        require_writable(target, overwrite)
    if grids is not None:
        require_drawable(grids, run.model.config["inputs"]["modality"], str(run.path), overwrite=overwrite)
    clustering = {"subclasses": subclasses, "each": each, "balanced": balanced, "known": known}
    if refine is not None and (data is not None or names is not None or not write):
        raise UserError(
            "--refine trains on the run's own data, in its folder: leave out --data and --names, and name the "
            "subclasses of the refined run",
            code="conflicting_options",
        )
    kept = write
    if refine is not None or names is not None:
        run.folder.require_writable()
    elif write:
        try:
            run.folder.require_writable()
        except UserError as error:
            warn(f"the subclasses are not kept: {error}")  # in a folder of somebody else's they are shown all the same
            kept = False
    refinement = None
    if refine is not None:
        refinement = refine_run(
            run, refine, superclass=superclass, clustering=clustering, overwrite=overwrite, seed=seed
        )
        run, superclass, clustering = refinement.run, None, {}
    options: dict[str, Any] = {"ignore_coarse_labels": ignore_coarse_labels, "exemplars": exemplars, "seed": seed}
    dataset = run.given_or_own(data, reader_options)
    if dataset is None:
        splits = run.splits()
        found, _ = fit_subclasses(
            run,
            splits,
            superclass=superclass,
            clustering=clustering,
            names=names,
            write=kept,
            overwrite=overwrite,
            **options,
        )
        if kept and target is None:
            target = run.path / "discovery" / "samples.parquet"
    else:
        if given_of(clustering) or superclass is not None or names is not None:
            raise UserError(
                "--subclasses, --each, --balanced, --known, --superclass and --names are about the run's own "
                "subclasses: settle those first, without --data"
            )
        fitted = _settled(run, seed=seed, write=write, kept=kept)
        splits = run.fitting(dataset).by_split()
        found, _ = assign_subclasses(run.model, splits, fitted, **options)
    if grids is not None:
        write_grids(found, splits, grids, split="test" if "test" in splits else None, seed=seed)
    if estimate_classes:
        found.class_count = class_count_of(run.model, splits.get("train", next(iter(splits.values()))), seed=seed)
        found.notes.append(found.class_count.describe())
    if refine is None and dataset is None:
        refinement = read_refinement(run, found)
    if refinement is not None:
        found.notes.append(refinement.describe())
    if target is not None:
        write_columns(found.columns(), target)
        found.file = target
    return found


def _settled(run: Run, *, seed: int, write: bool, kept: bool) -> SubclassModel:
    """The run's subclasses; where there are none yet they are settled, if that is to be written, and ``kept``."""
    fitted = read_discovery(run)
    if fitted is not None:
        return fitted
    if not write:
        settle = f"`{command('discover', run.path)}`"
        raise UserError(f"the subclasses of {run.path} are not settled yet: {settle} settles them")
    return fit_subclasses(run, run.splits(), seed=seed, write=kept)[1]
