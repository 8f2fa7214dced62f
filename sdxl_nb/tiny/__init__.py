"""The embedded base: a tiny SDXL, its pictures, and the scripts that made them. See README.md beside this file."""
