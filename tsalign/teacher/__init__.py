"""The teacher: a model that scores, or one that writes, behind HTTP; deployed on Ray Serve or running elsewhere."""
