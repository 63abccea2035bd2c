"""The vault: seal originals beside the rows, reveal one on record, erase a person for good.

`crypto` is values in, values out. `seal` is what a batch's transaction adds; `reveal`, `erase`,
`rewrap` and `rekey` are the acts of people. docs/discussions/threat-model.md says what somebody
gains who has a stolen table, key or host, or is a superuser.
"""
