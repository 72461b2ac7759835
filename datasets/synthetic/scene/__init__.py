"""What a synthetic picture shows: people, motion, objects, light, background; and its ray casting."""
