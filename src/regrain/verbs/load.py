"""``load``: read data from any source."""

from __future__ import annotations

from typing import Any

from regrain.data.dataset import Dataset
from regrain.data.readers import read
from regrain.errors import warn_of_data
from regrain.runs.verb import verb


@verb
def load(source: Any, **reader_options: Any) -> Dataset:
    """Load data from a catalog name, a path, arrays, a DataFrame or a Hugging Face data set.

    Parameters
    ----------
    source
        See :func:`regrain.data.readers.read`.
    **reader_options
        Of the reader that fits: see :class:`regrain.data.options.ReaderOptions`. ``split_column``, ``group_column`` and
        ``id_column`` name columns of a table, ``levels`` those of the labels.

    Examples
    --------
    >>> data = load("digits")
    >>> data.modality, data.labels.levels
    ('image', ('group', 'digit'))
    """
    dataset = read(source, **reader_options)
    warn_of_data(dataset.name, dataset.messages)
    return dataset
