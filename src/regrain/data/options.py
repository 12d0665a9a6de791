"""Options of the readers, each declared once: its type, and its help text, whose first sentence a terminal shows.

The readers of one kind of source take a part of them, the verbs all (:class:`ReaderOptions`). The command line offers
those that have a text; the others are for data in memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

from regrain.data.samples import Modality
from regrain.labels import Relation

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet", ".pq", ".jsonl", ".ndjson", ".json")
"""Endings of table files, in lower case."""


class StorageOptions(TypedDict, total=False):
    """How samples are kept; every reader takes these options."""

    image_size: Annotated[
        int | tuple[int, int] | None,
        "Side in pixels at which images are stored. The shorter side is resized, and the centre cut out; (height, "
        "width) for images that are not square. By default small images of one size stay as they are, others get "
        "min(256, median shorter side).",
    ]
    channels: Annotated[
        int | None, "1 grey, 3 colour, 4 with transparency. By default 1 when a sample of the images is grey, else 3."
    ]
    white: Annotated[
        int | None,
        "The value of 16-bit pixels that is stored as 255, such as 4095. By default the largest number of 8, 10, 12, "
        "14 or 16 bits, by the brightest pixel of a sample of the images.",
    ]
    cache: Annotated[
        bool, "Decode images once, into a memory-mapped file in the cache folder. For large images that are read often."
    ]
    skip_unreadable: Annotated[
        bool,
        "Leave out, and count, samples that cannot be read. These are missing or damaged images, vectors with NaN, "
        "empty texts and broken lines; without it they are an error.",
    ]


class SampleOptions(TypedDict, total=False):
    """Which columns of a table hold the samples; guessed where not named."""

    image: Annotated[
        str | None, "Column with image paths or encoded images. Paths are absolute, or relative to the table's folder."
    ]
    text: Annotated[str | None, "Column with texts."]
    columns: Annotated[
        Sequence[str] | None,
        "Columns of numbers, or patterns such as 'f*'. A column may hold a list of numbers in every row. A pattern "
        "leaves out columns that are something else (a level, the group, an id) or hold no numbers, and a message "
        "names them.",
    ]
    series_shape: Annotated[
        tuple[int, int] | None, "Time steps and channels, such as 128x6, of a series whose numbers fill a row."
    ]
    record: Annotated[
        str | None,
        "Column that says which record a row belongs to, where a row is one time step. A record is a session or a "
        "patient, say. The series' channels are the columns of numbers, by default all that are nothing else. Ids are "
        "record:start; the group is the record unless group_column names another. A window's label is that of its "
        "rows where they agree, else that of its last row; to predict what follows, write into a row the label of the "
        "row after it.",
    ]
    time: Annotated[
        str | None, "Column of numbers or dates that orders the rows of a record; default: the table's order."
    ]
    window: Annotated[
        int | None,
        "Width in time steps of the samples that records are cut into. Shorter records are left out. Without a window "
        "a record is one sample, and all must be of one length.",
    ]
    stride: Annotated[int | None, "Time steps from one sample to the next; default: the window."]
    gap: Annotated[
        float | None,
        "Longest step of time within a sample, in the unit of the time column (dates: seconds). By default 1.5 usual "
        "steps where the clock is regular, so that no window crosses missing rows; else any.",
    ]
    static: Annotated[
        Sequence[str] | None,
        "Columns of numbers, or patterns, that are constant in a record: static features next to the series.",
    ]


class ColumnOptions(TypedDict, total=False):
    """Columns of a table that are neither samples nor labels."""

    split_column: Annotated[str | None, "Column that says train or test."]
    group_column: Annotated[str | None, "Column of groups that a split keeps together, such as subject or product."]
    id_column: Annotated[str | None, "Column of unique ids."]


class _Levels(TypedDict, total=False):
    levels: Sequence[str] | None


class _Relation(TypedDict, total=False):
    relation: Annotated[
        Relation, "tree: a class has one parent; paths: a class is its path; aspects: levels do not nest."
    ]


class _LabelPaths(TypedDict, total=False):
    label_paths: Annotated[bool, "The level's column holds paths such as animal/dog/beagle."]


class _Name(TypedDict, total=False):
    name: str | None


class _Written(TypedDict, total=False):
    """How a table writes things.

    ``unknown``: labels that mean "not known", besides empty cells and NaN, such as ``["NA", "?"]``. ``notations``: how
    a run's own table wrote numbers that are not plain, as ``notes["notations"]`` of its data records it.
    """

    unknown: Sequence[str]
    notations: Mapping[str, str]


class _Splits(TypedDict, total=False):
    splits: Sequence[Any] | None


class _Place(TypedDict, total=False):
    root: Annotated[
        str | Path | None,
        "Folder of a data set that is known by name, or the folder above it (or the variable REGRAIN_DATA).",
    ]
    download: Annotated[bool, "Fetch a data set that is known by name, if it is missing."]


class _InMemory(TypedDict, total=False):
    """Options of samples in memory: one entry per sample, and the content of the array."""

    ids: Sequence[Any] | Any | None
    groups: Sequence[Any] | Any | None
    modality: Modality | None
    layout: Literal["NCHW", "NHWC"] | None


class _Counts(TypedDict, total=False):
    gene_counts: Annotated[
        Literal["normalise", "keep"] | None,
        "Counts of single cells (.h5ad): normalise makes log(1 + 10,000 x / total of the cell) of them, keep leaves "
        "the numbers as they are. By default a matrix that holds whole numbers of 0 and more alone is normalised.",
    ]


class FolderOptions(StorageOptions, _Levels, _Name, total=False):
    """Options of folders of images."""


class RoleOptions(SampleOptions, _Levels, _LabelPaths, _Relation, ColumnOptions, _Written, _Name, total=False):
    """Roles of a table's columns; columns that are not named are guessed."""


class ObservationOptions(_Levels, _Relation, ColumnOptions, _Written, _Name, total=False):
    """Roles of the columns that describe single cells."""


class CellOptions(ObservationOptions, _Counts, StorageOptions, total=False):
    """Options of single cells (AnnData).

    columns : sequence of str, optional
        Genes, by name or pattern; or one matrix of ``obsm``.
    """

    columns: Sequence[str] | None


class TableOptions(RoleOptions, StorageOptions, total=False):
    """Options of tables and Hugging Face data sets."""


class ParquetFolderOptions(TableOptions, _Splits, total=False):
    """Options of folders of Parquet files; ``splits`` says which of them are read."""


class ShardOptions(StorageOptions, _Levels, _Splits, _Name, total=False):
    """Options of folders of shards; ``splits`` and ``levels`` say which are read."""


class ArrayOptions(_Levels, _Relation, _Splits, _InMemory, _Name, StorageOptions, total=False):
    """Options of samples in memory.

    levels : sequence of str, optional
        Names of the levels, for labels that bring none.
    ids, groups, splits : sequences (N,), optional
    modality : "image", "text", "vector" or "series", optional
        Where the shape says too little: a float array (N, A, B) is a series unless it is said to hold images.
    layout : "NCHW" or "NHWC", optional
        Where the channels of images are.
    static : array (N, S), optional
        Static features of series (N, T, C); S may be 0.
    """

    static: Any


class CatalogOptions(_Place, _Splits, _Levels, StorageOptions, total=False):
    """Options for the data sets that are known by name; ``splits`` and ``levels`` say which of theirs, default all."""


class ReaderOptions(
    _Place, SampleOptions, _LabelPaths, _Relation, ColumnOptions, _Counts, _Written, _Splits, _InMemory, _Name,
    StorageOptions, total=False,
):  # fmt: skip
    """Options of all readers, which the verbs take in addition to ``levels``; each is for sources that know it."""

    labels: Any
