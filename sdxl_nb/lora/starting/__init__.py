"""With which LoRAs does a run start? Files in; weights to train on from, or frozen below the new ones, out."""
