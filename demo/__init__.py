"""`make demo`: one real image through the whole house, and a sentence that says what was proven."""
