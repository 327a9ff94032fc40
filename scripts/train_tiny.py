"""Run `scripts/scenes/train_tiny.py` under its former path."""

from scripts.scenes.train_tiny import main

if __name__ == "__main__":
    main()
