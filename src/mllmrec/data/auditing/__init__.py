"""What `mllmrec audit` checks, one module for each kind of material."""
