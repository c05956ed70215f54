"""What an attempt stores: per-example rows, previews, the summary and the facts for the manifest."""
