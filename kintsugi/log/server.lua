-- Tells which life of which server holds the log. KEYS: head, log, positions.
return server_life()
