"""Yes/no benchmarks: how answers are read and counted, whatever is asked."""
