"""Shared connections to the outside."""
