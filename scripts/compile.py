"""Compile the kernels before the tests, so that no command under test does."""

from twinloop.build import compile_kernels
from twinloop.tags import Tag, TagTable

compile_kernels(TagTable([Tag(name="R101.temperature", asset="R101")]))
