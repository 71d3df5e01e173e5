"""PAD: preference-aligned distillation (arXiv 2502.14272)."""
