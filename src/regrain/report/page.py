"""Render one self-contained HTML file from a template, with styles, script, data and pictures inside."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from importlib import resources
from importlib.util import find_spec
from typing import Any

import numpy as np

from regrain.errors import UserError
from regrain.report.content import Chart, Content
from regrain.report.sprite import TILE, Cells

_MAP_CELLS = 3000
"""Most map points with a visible sample; more would make the file too large."""


def require_packages(*names: str) -> None:
    """Raise a UserError, before any computation, if a package of the extra ``report`` is not installed."""
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise UserError(
            f"{' and '.join(missing)} not installed, which this needs: `pip install 'regrain[report]'` brings it",
            code="missing_package",
        )


def report_page(content: Content) -> str:
    """Render the report as HTML."""
    cells = Cells(content.judged)
    cells.add(s.row for group in content.groups for s in group.samples)
    cells.add(row for query in content.queries for row in (query.row, *(found.row for found in query.found)))
    cells.add(shown.row for doubt in content.doubts for shown, *_ in doubt.rows)
    if content.map is not None:
        places = np.linspace(0, len(content.map.rows) - 1, min(_MAP_CELLS, len(content.map.rows))).round().astype(int)
        cells.add(content.map.rows[places])
    sprite = cells.sprite()
    payload: dict[str, Any] = {
        "cells": cells.payload(),
        "charts": {
            name: chart_payload(chart)
            for kind, charts in (("curve", content.curves), ("few", content.few_shot))
            for name, chart in ((f"{kind}-{number}", chart) for number, chart in enumerate(charts))
        },
        "matrices": [
            {"classes": c.classes, "above": c.above, "counts": c.counts.astype(np.int32)} for c in content.confusions
        ],
    }
    if content.map is not None:
        payload["map"] = _map_payload(content, cells)
    return render(
        "report.html",
        payload,
        content=content,
        cell_of=cells.places,
        cell_words=cells.words(),
        map_cells=min(_MAP_CELLS, 0 if content.map is None else len(content.map.rows)),
        sprite=None if sprite is None else base64.b64encode(sprite.content).decode(),
        sprite_size=(0, 0) if sprite is None else (sprite.across * TILE, sprite.rows * TILE),
    )


def render(template: str, payload: Mapping[str, Any], **values: Any) -> str:
    """Fill a template of this package; every text is escaped.

    ``template``: name of a file in ``report/templates``. ``payload``: data for the script; arrays are packed.
    ``**values``: values for the template.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("regrain.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["prose"] = _prose
    folder = resources.files("regrain.report") / "templates"
    files = {name: (folder / name).read_text(encoding="utf-8") for name in ("style.css", "page.js")}
    return environment.get_template(template).render(
        style=files["style.css"], script=files["page.js"], payload=_packed(payload), **values
    )


def _prose(text: str) -> Any:
    """Escape a sentence; what stands between backticks becomes code, as in Markdown."""
    from markupsafe import Markup, escape

    parts = text.split("`")
    if len(parts) % 2 == 0:
        return escape(text)
    return Markup("").join(Markup("<code>{}</code>").format(p) if n % 2 else escape(p) for n, p in enumerate(parts))


def chart_payload(chart: Chart) -> dict[str, Any]:
    """Convert a chart for the script."""
    return {
        "title": chart.title,
        "x": chart.x,
        "y": chart.y,
        "logX": chart.log_x,
        "lines": [{k: v for k, v in vars(line).items() if v is not None} for line in chart.lines],
    }


def _map_payload(content: Content, cells: Cells) -> dict[str, Any]:
    found = content.map
    assert found is not None
    rows = found.rows.tolist()
    return {
        "points": found.points,
        "ids": [str(content.judged.ids[row])[:80] for row in rows],
        "cells": np.array([cells.places.get(row, -1) for row in rows], np.int32),
        "levels": [
            {"name": name, "classes": list(classes), "codes": codes.astype(np.int32), "means": means}
            for (name, classes, codes), means in zip(found.levels, found.means, strict=True)
        ],
    }


def _packed(value: Any) -> Any:
    """Encode arrays as base64 of their bytes, with type and shape; return other values unchanged."""
    if isinstance(value, np.ndarray):
        kept = np.ascontiguousarray(value.astype(value.dtype.newbyteorder("<")))
        return {"dtype": kept.dtype.name, "shape": kept.shape, "base64": base64.b64encode(kept.tobytes()).decode()}
    if isinstance(value, Mapping):
        return {key: _packed(inner) for key, inner in value.items()}
    return [_packed(inner) for inner in value] if isinstance(value, list | tuple) else value
