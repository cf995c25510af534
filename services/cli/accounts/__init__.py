"""Every term and every call accounted for; the sums are pure, the evidence is read."""
