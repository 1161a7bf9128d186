"""One file for each box of Fig. 3 and 4 of the paper."""
