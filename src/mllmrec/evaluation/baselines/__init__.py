"""What any recommender has to beat: counts, neighbours and session models, tuned and fitted by libraries."""
