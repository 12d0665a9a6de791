"""Drawings for reports, the explorer and grids: samples as tiles, embeddings as a map."""
