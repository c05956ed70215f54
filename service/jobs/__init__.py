"""Jobs: the document a user hands in, its row in the database, its life."""
