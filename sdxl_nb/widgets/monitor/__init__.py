"""The monitor: what a run does now, its curve, its newest pictures, its buttons."""
