"""What a list will cost, told before it is submitted."""
