"""Who may talk to the API: the key, one-time links, dashboard sessions, and hosts and origins."""
