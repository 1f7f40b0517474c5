"""``python -m torchlight``: the command, also where it is not installed."""

from torchlight.command import main

if __name__ == "__main__":
    main()
