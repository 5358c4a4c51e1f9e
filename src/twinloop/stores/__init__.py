"""Stores: where history goes and questions are answered."""
