"""Off-policy evaluation: how good a policy is, from logged data alone, on images that it has not learned from."""

from orl_ldm.learn.ope.judging import checkpoints, estimates, judged_together

__all__ = ["checkpoints", "estimates", "judged_together"]
