"""The tests within the samples are for the agents: nobody else runs them."""

collect_ignore = ["samples"]
