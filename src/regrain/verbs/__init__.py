"""The verbs, one file each: signature, docstring and body. ``regrain.fit`` is ``fit`` of :mod:`regrain.verbs.fit`."""
