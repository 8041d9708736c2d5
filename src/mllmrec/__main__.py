"""`python -m mllmrec`: the command line, in the form that `torchrun -m` and `accelerate launch -m` need."""

from mllmrec.cli.main import main

if __name__ == "__main__":
    main()
