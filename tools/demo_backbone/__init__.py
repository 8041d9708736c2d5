"""How the weights that the demo begins with were pre-trained: lessons in worlds that last for one question."""
