"""The embedded server. Its module is named here, since importing it loads torch."""

SERVER = f"{__name__}.server"
