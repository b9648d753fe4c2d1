"""Filters: conditions on the attributes of documents. Pure.

`tree` is what a filter is, `matching` what it means, `wire` how it travels, `dicts` and `expression` how people write it.
"""
