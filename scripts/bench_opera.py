"""Run `scripts/bench/opera.py` under its former path."""

from scripts.bench.opera import main

if __name__ == "__main__":
    main()
