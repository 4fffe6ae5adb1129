"""Where the written sample rows come from; not part of the installed packages."""
