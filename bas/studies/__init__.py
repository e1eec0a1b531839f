"""The studies, a room each: what is trained, its numbers, its page, its figures. One study knows no other."""
