"""A small world whose tasks, answers and judge are code, so that a whole alignment run fits in minutes."""
