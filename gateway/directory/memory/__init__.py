"""What a worker remembers of the facts, and for how long: near cache, lease, follower of the feed."""
