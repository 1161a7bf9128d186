"""Containers with pictures and sound: read, sampled, written."""
