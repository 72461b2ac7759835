"""The synthetic demo (`scripts/demo.sh`): an unseen person, personalised end to end."""
