"""Closed-form and factor models of who met what: partners that need no training of their own."""
