"""The playground: LoRAs under sliders, and the picture they make."""
