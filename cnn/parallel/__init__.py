"""Training in several processes: each takes shards of every batch, and one sum joins them."""
