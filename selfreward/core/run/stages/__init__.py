"""The five stages of a round, each made into an artifact of the store; one file each."""
