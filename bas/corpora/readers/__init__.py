"""One corpus a file: a folder as its distributor made it in, a `Corpus` out."""
