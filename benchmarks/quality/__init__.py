"""Section "quality": our decisions beside every baseline's, on sets whose true labels are known.

Shape letters of the package: P examples of the pool (curated and trusted), N curated, M trusted, C classes.
"""
