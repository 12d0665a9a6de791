"""The papers' wing: their data sets, tables and experiments. The library works without it and does not import it.

``datasets`` are registered by name when ``regrain`` is imported (:mod:`regrain.registry`); ``tables/PAPER.yaml`` has
the rows of the papers' tables.
"""
