"""One command for a person in a hurry: measure, decide what is worth doing in the time given, and do it by a recipe."""
