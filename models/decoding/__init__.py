"""Ways to choose the next token, beside greedy, beams and sampling."""
