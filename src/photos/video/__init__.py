"""Videos that a person brings: hands followed through them, drawn in, written down."""
