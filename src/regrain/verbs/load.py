"""``load``: data from wherever they are."""

from __future__ import annotations

from typing import Any

from regrain.data.dataset import Dataset
from regrain.data.readers import read
from regrain.errors import warn_of_data


def load(source: Any, **options: Any) -> Dataset:
    """Data from a catalog name, a path, arrays, a DataFrame or a Hugging Face data set.

    Parameters
    ----------
    source
        See :func:`regrain.data.readers.read`.
    **options
        Of the reader.

    Examples
    --------
    >>> data = load("digits")
    >>> data.modality, data.labels.levels
    ('image', ('group', 'digit'))
    """
    dataset = read(source, **options)
    warn_of_data(dataset.name, dataset.notes.get("messages", ()))
    return dataset
