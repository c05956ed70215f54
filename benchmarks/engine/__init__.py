"""Section "engine": time, peak memory and exactness of the meta level, beside plain training and beside Betty."""
