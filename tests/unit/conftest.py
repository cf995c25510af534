"""Makes the fakes and samples beside this file importable from every test below it."""
