"""How a method is trained."""
