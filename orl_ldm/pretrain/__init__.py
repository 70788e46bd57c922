"""Pretraining of the embedded LDM: a first stage, then a denoiser, on any image source of the project."""
