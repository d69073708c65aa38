"""Brings collections of mammograms, and the sample made here, into the layout of `data/`."""
