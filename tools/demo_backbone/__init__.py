"""The pre-training of the demo's backbone: lessons in made-up worlds that last for one question."""
