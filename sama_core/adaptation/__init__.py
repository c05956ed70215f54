"""Adaptation D = du/dg: how an optimizer's update answers its gradient, one optimizer family a file."""
