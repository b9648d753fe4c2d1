"""The attribute index of a replica: which rows have which values, for filters.

    terms      what the index holds of one document
    changes    what a batch of records changes in it
    layout     the bytes of its three sub-databases
    rowset     sets of rows as they are stored and answered: Roaring containers and bitmaps
    writing    makes the changes inside the transaction of the batch
    column     the numbers of one attribute in memory, sorted
    columns    the columns in use, each in the states that readers may be in
    lookup     the rows that fulfil a filter, in one state of the database
    upgrade    fills the index of a database that was written before there was one

Meaning is that of kintsugi.filters.matching, exactly. Everything is derived from the documents in the same database.
"""
