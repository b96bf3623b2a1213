"""Pure functions and small modules on tensors; knows no model family."""
