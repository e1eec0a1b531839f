"""How numbers read: tables, pages, notes."""
