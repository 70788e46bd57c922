"""Images: sources, synthetic scenes, degradations, and high/low-resolution pairs."""
