"""Accounts of days, stages and batches, out of which every call is paid."""
