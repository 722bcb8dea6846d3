"""Relations, prompts and languages as data files, and fictional names: what experiments are made of."""
