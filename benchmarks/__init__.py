"""What the agent costs, measured on this machine: ``python -m benchmarks [NAME...] [--json]``."""
