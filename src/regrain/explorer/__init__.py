"""The explorer: discovered subclasses get names, labels get corrected, and training goes on.

:class:`regrain.explorer.session.Session` is an open exploration without any page, :mod:`regrain.explorer.server` (extra
``explore``) shows it to browsers.
"""
