"""Translation: pairs of texts, for models with an encoder and a decoder, and for causal ones by a prompt."""
