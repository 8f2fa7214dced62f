"""One page from pictures to a LoRA: a project folder, opened again tomorrow as it was left."""
