"""The toy world's teacher that writes: rubrics for the families of tasks, and revisions of replies."""
