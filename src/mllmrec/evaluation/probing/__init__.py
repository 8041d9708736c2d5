"""What a model goes by: exact scores of the same questions, asked in other words."""
