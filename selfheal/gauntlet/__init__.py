"""Every drift scenario of docs/healing.md, many seeds, through the pipeline's own pure functions in one process."""
