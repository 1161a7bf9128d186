"""Masks of a video's frames in the formats of label tools and other data sets."""
