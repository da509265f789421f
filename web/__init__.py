"""The portal and the HTTP API: they join in the next releases."""
