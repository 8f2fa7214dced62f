"""What is in a folder of files? A path in; a Listing of what the person meant out, and what was left out, counted."""
