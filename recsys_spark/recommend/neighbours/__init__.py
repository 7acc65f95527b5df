"""Item and user neighbours: from the whole catalogue, or from short lists."""
