"""A regular package: a dependency installs a package named tests, which would shadow a folder without this file."""
