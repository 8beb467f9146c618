"""The power-cut rig: a writer, what it was promised, and every way to pull its plug."""
