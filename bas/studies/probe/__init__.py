"""Which layer: every hidden state and their mixes, probed."""
