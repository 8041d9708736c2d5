"""Training stages: small backbones, SFT, merging, GRPO."""
