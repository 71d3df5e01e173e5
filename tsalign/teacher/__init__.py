"""The teacher: a reward model behind HTTP, deployed on Ray Serve or already running elsewhere."""
