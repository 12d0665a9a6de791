"""Packages of the extra ``report``."""

from __future__ import annotations

from importlib.util import find_spec

from regrain.errors import UserError


def require_packages(*names: str) -> None:
    """Raise a UserError, before any computation, if one of the packages is not installed."""
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise UserError(
            f"{' and '.join(missing)} not installed, which this needs: `pip install 'regrain[report]'` brings it",
            code="missing_package",
        )
