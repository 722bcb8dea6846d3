"""vLLM as a model server. The class that it loads into its worker is named here, since importing that loads vLLM."""

ADAPTERS = f"{__name__}.adapters.Extension"
