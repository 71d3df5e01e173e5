"""Best-of-n as a package of its own, and one part of each other kind."""
