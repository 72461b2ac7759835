"""How a run goes: train, predict, evaluate, demonstrate, and the checkpoints between them."""
