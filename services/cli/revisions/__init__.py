"""Making terms anew from a checkpoint: a revision is a batch of its own."""
