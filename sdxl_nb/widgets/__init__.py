"""What one sees and presses in a notebook: widgets that read a configuration or a run folder, never the training code.

Each has a plain twin that needs no widget (a table, a matplotlib Figure), and shows its errors where they happen.
"""
