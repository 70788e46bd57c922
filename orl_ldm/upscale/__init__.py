"""Upscale: a file in, a file of four times the size out, with everything kept that the file knew."""
