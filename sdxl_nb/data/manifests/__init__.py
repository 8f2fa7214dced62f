"""Data files: which folders make up a data set, and what is said of each; our own, and those of other trainers."""
