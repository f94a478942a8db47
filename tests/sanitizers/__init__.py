"""The compiler's sanitizers: `make sanitize`."""
