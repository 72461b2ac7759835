"""Command lines: argparse and the recipes' default values. Imports no torch, so that --help answers at once."""
