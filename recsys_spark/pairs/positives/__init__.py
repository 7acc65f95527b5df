"""The four sources of positive pairs: behaviour, collaborative, knowledge graph, text."""
