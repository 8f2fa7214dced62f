"""The validation grid: a run's pictures by stage and scale, drawn where they lack, shipped."""
