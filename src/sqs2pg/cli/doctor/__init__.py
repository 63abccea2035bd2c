"""The doctor: checks that each say what is, what is wrong, and what to do about it.

`finding` is what a check says, `context` what checks share, `runner` runs them in order; each
other module holds the checks of one topic. A new check is an async function that takes the
Context and returns a Finding (or several), and a line in the list of `checks`.
"""
