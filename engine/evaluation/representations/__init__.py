"""How a checkpoint represents the prompts: hidden states, and what is computed of them."""
