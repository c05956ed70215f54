"""Pages for people: server-rendered, readable without scripts, live where scripts run."""
