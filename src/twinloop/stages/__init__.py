"""Stages of the fold: pure steps with a state that can be kept."""
