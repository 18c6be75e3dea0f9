"""What a valid run is: the kinds of plugins, who provides them, composition and its checks."""
