"""``python -m supernet.cli``: the same as ``supernet``."""

from supernet.cli import main

if __name__ == "__main__":
    main()
