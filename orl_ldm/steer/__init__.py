"""The door for whoever has an image: SteeredSR."""
