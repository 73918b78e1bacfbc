"""The parts of the verifier: tokens, rules, and the follower of revocations. No IO and no clock: times and messages
come in as values."""
