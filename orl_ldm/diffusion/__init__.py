"""The frozen LDM: loading it, its noise schedule, the steered sampler and the null-space projection."""
