"""Ask the models over HTTP: one protocol (OpenAI completions), one client, two servers (vLLM and the embedded one)."""
