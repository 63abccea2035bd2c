"""Keys: two series of root keys, what is derived from them, and where they come from.

`derive`, `hmac_state` and `aead` are pure. `keyring` has the roots, `provider_*` read and make
them, and `providers` chooses one. This file imports nothing: masking uses `keys.derive` and must
not pull in I/O.
"""
