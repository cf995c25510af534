"""From a submission to an accepted term."""
