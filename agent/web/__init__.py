"""The technician's page, and what programs ask of the gateway over HTTP."""
