"""The REST API, the dashboard, the database layer, the command line and the client. Never imports torch."""
