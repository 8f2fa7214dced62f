"""What else teaches: the base, to keep what it draws (prior) or go between two prompts (slider); opposites (pairs)."""
