"""Side-by-side measurements, run by `make bench`, and the demo."""
