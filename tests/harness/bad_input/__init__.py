"""The bad-input table: for every field of every public rpc what is wrong with it, and what the server must say."""
