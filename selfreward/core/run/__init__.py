"""One run: its models, engines and folder, the stages around the plugins, and where they are run."""
