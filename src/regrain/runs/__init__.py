"""A run: its recipe, its data, its model, and the classifiers fitted on its embeddings."""
