"""Commands around the library and the evaluations, in the folders bench, scenes, data and check.

The Python files at this level, and `download_data.sh`, only run a command of a folder under the
path that it had before there were folders.
"""
