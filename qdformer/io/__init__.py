"""Where files from outside enter: each is opened, decoded and written in one place."""
