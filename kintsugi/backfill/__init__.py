"""The worker of a backfill: pulls documents that lack a vector, embeds them with a program of the user's, puts the vectors back."""
