"""One commit that makes a night visible, and the rollback that points readers at an earlier one."""
