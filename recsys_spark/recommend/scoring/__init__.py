"""What each partner says about a block of users, and the fused score."""
