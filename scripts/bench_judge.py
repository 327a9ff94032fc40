"""Run `scripts/bench/judge.py` under its former path."""

from scripts.bench.judge import main

if __name__ == "__main__":
    main()
