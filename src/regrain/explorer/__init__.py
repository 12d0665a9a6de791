"""The explorer: discovered subclasses get names, labels get corrected, and training goes on.

:class:`Session` is an open exploration without any page; :mod:`regrain.explorer.server` (extra ``explore``) shows it.
"""

from regrain.explorer.session import Session

__all__ = ["Session"]
