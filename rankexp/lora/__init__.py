"""LoRA itself: the layer, putting it into a model, merging it, and PEFT's format on disk."""
