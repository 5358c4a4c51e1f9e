"""Logs: ordered, bounded, durable rows of entries."""
