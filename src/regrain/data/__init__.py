"""Where samples come from: data sets, their readers and the checker."""

from regrain.data.checking import Issue, Report, check
from regrain.data.dataset import Batch, Dataset
from regrain.data.readers import read
from regrain.data.samples import ImageSamples, Samples, SeriesSamples, TensorSamples, TextSamples

__all__ = ["Batch", "Dataset", "ImageSamples", "Issue", "Report", "Samples", "SeriesSamples", "TensorSamples",
           "TextSamples", "check", "read"]  # fmt: skip
