"""Videos in, overlays with sound, masks, annotations and time lines out."""
