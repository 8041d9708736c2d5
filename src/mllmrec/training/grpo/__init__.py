"""GRPO: sampled or exact, its rewards, and the watch over it."""
