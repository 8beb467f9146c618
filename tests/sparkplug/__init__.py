"""The conformance runner of the Sparkplug edge node: sessions, what passed in them, statements."""
