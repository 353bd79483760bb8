"""The page elements of the book: claims, figures, glued numbers, executed notebooks."""
