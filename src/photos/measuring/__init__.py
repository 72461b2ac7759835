"""What tells sizes in a picture: the lens, a plane that something of known size lies in, a flat hand in it."""
