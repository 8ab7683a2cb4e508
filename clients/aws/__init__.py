"""AWS from below: the options of an account, and clients made of them."""
