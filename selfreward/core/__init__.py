"""The engine: contracts, configuration, rounds, the store and the loop. Imports no plugin."""
