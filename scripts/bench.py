"""Run `scripts/bench/costs.py` under its former path."""

from scripts.bench.costs import main

if __name__ == "__main__":
    main()
