"""What `mllmrec audit` looks for, one module for each kind of material."""
