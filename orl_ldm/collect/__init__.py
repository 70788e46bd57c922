"""The collector: roll images out under an exploring behaviour policy and publish every transition."""
