"""What plugins are written against: rows, stages, engines, data, models, rounds, events, options."""
