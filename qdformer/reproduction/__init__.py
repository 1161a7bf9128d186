"""The paper's tables and figures: what is run, how it is run, what is reported."""
