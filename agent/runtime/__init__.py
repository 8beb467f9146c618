"""What runs: pipeline, scoring, uplinks, supervision."""
