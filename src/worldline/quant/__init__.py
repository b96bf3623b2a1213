"""Eight bits: rows with a scale each, linear layers and a ring's storage made of them."""
