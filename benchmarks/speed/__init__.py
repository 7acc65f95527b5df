"""Speed against named rivals, and the data both sides get."""
