"""Train any method of the MaskCon paper on any of its datasets: `python -m examples.reproduce --help`."""
