"""What is computed with the changes that LoRAs make: cuts by rank or energy, merges, differences, extraction."""
