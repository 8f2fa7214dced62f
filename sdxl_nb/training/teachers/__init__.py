"""What the base itself teaches: to keep what it draws of other prompts (prior), or to go along between two (slider)."""
