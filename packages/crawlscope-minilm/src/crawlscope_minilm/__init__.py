"""The model files of the local embedder: paths, checksum and dimension."""
