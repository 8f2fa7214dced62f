"""Which kinds of LoRA are there beside two thin matrices? LoHa and LoKr: on a model, and as tensors of a file."""
