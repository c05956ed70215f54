"""The gradient of the meta loss with respect to what is learned, one method a file."""
