"""Supervised fine-tuning of a language model: from rows of any usual shape to tokens, and which of them are learned."""
