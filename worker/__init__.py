"""The worker: claims jobs and carries out their attempts, each in a process of its own."""
