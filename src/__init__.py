"""Networks, engine, evaluation and personalisation: floor 4 of the house."""
