"""Measurements of sdxl_nb beside huggingface/diffusers' training script; see BENCHMARKS.md."""
