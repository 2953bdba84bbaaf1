"""Programs for the maintainers of eccos. They are not part of the package."""
