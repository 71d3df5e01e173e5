"""The toy world of ARTE: tasks whose names tell nothing, a teacher that knows them, a student that needs examples."""
