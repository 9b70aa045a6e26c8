"""Allocators: from a model to a rank map, without searching."""
