"""What the documentation is made by; a package, so that the tests can follow the tutorial."""
