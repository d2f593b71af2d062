"""The server: La Plateforme's fine-tuning API on this machine, trained by the local backend."""
