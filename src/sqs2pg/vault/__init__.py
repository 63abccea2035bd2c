"""The vault: seal originals beside the rows, reveal one on record, erase a person for good.

`originals` and `envelope` are values in, values out. `sealing` is what a batch's transaction adds;
`reveal`, `forget`, `rewrap` and `rekey` are the acts of people. docs/discussions/threat-model.md
says what a stolen table, key, host or superuser gives.
"""
