"""Pictures for people: label maps over frames, and one sheet for a whole clip."""
