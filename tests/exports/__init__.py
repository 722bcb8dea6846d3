"""What the lab exports, opened by the programs that it is for: `make test-exports` installs them."""
