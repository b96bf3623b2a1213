"""Training recipes: code that makes the shipped weights; never imported by the package."""
