"""One module a topic: settings, the run, its result. Nothing else knows data, models and loop."""
