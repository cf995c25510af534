"""The front door: the command `cardflow`. The only room that imports the services."""
