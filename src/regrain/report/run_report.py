"""``report``: one file of HTML about a run, and its figures as pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from regrain.checks import Seed
from regrain.errors import UserError
from regrain.report.build import build_content
from regrain.report.figures import write_figures
from regrain.report.page import report_page, require_packages
from regrain.runs.tables import require_writable
from regrain.runs.verb import RunOrPath, verb
from regrain.storage.files import require_place, write_text

MAP_SAMPLES = 10_000


@verb
def report(
    run: RunOrPath,
    data: Any = None,
    *,
    out: str | Path | None = None,
    figures: str | Path | None = None,
    split: str = "test",
    levels: Sequence[str] | None = None,
    map_samples: int = MAP_SAMPLES,
    seed: Seed = 0,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda step: None,
    **reading: Any,
) -> Path:
    """Write a page about a run, one file that opens anywhere: metrics, map, nearest samples, subclasses, errors.

    The report reuses results on disk: ``evaluation.json`` if it is of this split, subclasses settled by ``discover``,
    the map and few-shot curves of an earlier report. It computes the rest. A section whose input is absent says why.

    Parameters
    ----------
    run : Run or path
        A run folder, or a Run.
    data : optional
        Other data than the run's own: whatever :func:`load` reads, such as a path or a data set's name.
    out : path, optional
        The page, .html; default ``RUN/report.html``, which an earlier report may be at.
    figures : path, optional
        A folder for the figures as PNG and SVG.
    split : str
        Which split to evaluate on.
    levels : sequence of str, optional
        A label level (column) of other data, from coarse to fine.
    map_samples : int
        Samples on the map, at most; t-SNE takes minutes. They are drawn by the seed; the page says how many.
    seed : int
        Fixes everything that is drawn.
    overwrite : bool
        Replace the file at ``out``, and figures.
    say : callable
        Called with messages on progress.
    **reading
        Of the reader; see :func:`regrain.load`.

    Returns
    -------
    Path
        The written file.

    Raises
    ------
    UserError
        If the run is not finished, the data do not fit it or have no such split, a file would be overwritten, or a
        package of the extra ``report`` is missing.

    Examples
    --------
    >>> import tempfile, regrain
    >>> folder = tempfile.TemporaryDirectory()
    >>> run = regrain.fit("maskcon", "digits", encoder="conv4", out=folder.name, settings=["epochs=2"], device="cpu")
    >>> report(run).name
    'report.html'
    >>> folder.cleanup()
    """
    require_packages("jinja2", "openTSNE", *(["matplotlib"] if figures is not None else []))
    target = run.path / "report.html" if out is None else Path(out)
    require_writable(target, overwrite or out is None, suffixes=(".html",), content="reports")
    if figures is not None:
        require_place(Path(figures), "choose another folder for --figures")
    if map_samples < 1:
        raise UserError(f"the map shows at least one sample; got {map_samples}", code="too_few")
    dataset = run.given_or_own(data, reading, levels=levels)
    content = build_content(run, dataset, split=split, seed=seed, map_samples=map_samples, say=say)
    say("page")
    write_text(target, report_page(content))
    if figures is not None:
        say("figures")
        write_figures(content, Path(figures), overwrite=overwrite)
    return target
