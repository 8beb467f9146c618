"""The configuration file: strict sections, read with line numbers."""
