"""edge-agent: collect, score, buffer and publish the data of industrial machines."""

__version__ = "0.1.0"
