"""Data sets as they lie on disk: allowed paths, tables, images, labels, digests, roles and their inspection."""
