"""The decision process: observations, actions, rewards, and the Gymnasium vector environment."""
