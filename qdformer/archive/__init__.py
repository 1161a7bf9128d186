"""Prediction over an archive: many videos in, tables of what sounds in them out."""
