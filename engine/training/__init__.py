"""Training: texts with their loss masks, the loop that both stages share, and checkpoints to resume from."""
