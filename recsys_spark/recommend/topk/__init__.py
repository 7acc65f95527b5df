"""The exact best K: the whole search, and its quick pass by guessed floors."""
