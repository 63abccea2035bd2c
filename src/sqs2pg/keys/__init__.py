"""Keys: two series of root keys, what is derived from them, and where they come from.

`derive` and `seal` are pure, `keyring` holds, `provider_*` and `development` read and make,
`load` chooses. Imports nothing here: masking uses `keys.derive` and must not pull in I/O.
"""
