"""What reports, the explorer and grids draw: samples as tiles, embeddings as a map."""
