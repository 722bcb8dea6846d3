"""Ask the models over HTTP: one protocol (OpenAI completions), one client, two servers (vLLM and the embedded one)."""

# A program that is named here, since importing it loads torch.
PREPARE = f"{__name__}.prepared"
