"""How does one product do the work of many small ones? Frozen weights and LoRA matrices in one matrix, for a step."""
