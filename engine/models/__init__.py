"""Language models: where they come from, their key tokens, the device they run on, and how they are saved."""
