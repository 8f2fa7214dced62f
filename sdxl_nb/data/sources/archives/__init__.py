"""What is in a zip or tar archive? Archives in; a Listing whose pictures are read where they lie out."""
