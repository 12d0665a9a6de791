"""Files and folders of runs and models: written whole or not at all, read with their checksums."""
