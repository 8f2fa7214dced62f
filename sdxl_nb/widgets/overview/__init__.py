"""All runs of a folder, side by side: what each is, two compared, one opened."""
