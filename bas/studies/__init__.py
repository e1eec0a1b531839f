"""Studies of other papers on the same corpora, features, splits and statistics as the search."""
