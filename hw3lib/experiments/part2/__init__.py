"""Part 2: adversarial examples."""
