"""Allocators: a rank for each layer from a model and its data, without a search."""
