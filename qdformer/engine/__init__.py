"""Training: the trainer, its optimizer and its hooks."""
