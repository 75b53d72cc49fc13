"""The index: its port, and the adapters of the embedded engine, its process and a Qdrant server."""
