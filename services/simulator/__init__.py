"""An OpenRouter that runs offline: for the demo, tests, load tests and rehearsals."""
